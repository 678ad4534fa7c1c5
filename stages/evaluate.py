"""Stage 9: how well scans never trained on are reconstructed."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.settings import Settings


def evaluate(
    settings: Settings,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv with the split.")],
    volumes: Annotated[Path, typer.Option(help="volumes.zarr of the preprocess stage.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics, per-scan table and examples.")],
    ae: Annotated[
        Path | None,
        typer.Option(help="Autoencoder folder; default: models/ae, else the bundled one."),
    ] = None,
    latents: Annotated[
        Path | None, typer.Option(help="latents.zarr of the encode stage (study).")
    ] = None,
    ldae: Annotated[Path | None, typer.Option(help="Model of train-ldae (study).")] = None,
    what: Annotated[
        Literal["study", "ae"],
        typer.Option(help="The study's reconstructions, or the autoencoder alone in depth."),
    ] = "study",
) -> None:
    """Judge AE and LDAE reconstructions against the preprocessed scans, or the AE alone.

    `--what ae`: SSIM, MS-SSIM, PSNR, MSE, ventricle volumes, five round trips in a row, what each
    latent channel carries, speed and memory.

    Example: pipeline evaluate --manifest data/cohort/manifest.csv --volumes data/volumes.zarr
    --latents data/latents.zarr --ae models/ae --ldae models/ldae --out reports/evaluate
    """
    from pipeline.bundled import find_autoencoder
    from schemas.errors import ParamsError

    folder, which = find_autoencoder(ae)
    if what == "ae":
        typer.echo(f"autoencoder: {which}")
        _judge_autoencoder(settings, manifest, volumes, folder, out)
        return
    if latents is None or ldae is None:
        raise ParamsError("evaluate: --latents and --ldae are needed, or --what ae")

    from pipeline.cohort.manifest import read_manifest
    from pipeline.evaluation.headline import read_headline
    from pipeline.evaluation.reconstruction import Reconstructor, evaluate_reconstruction
    from pipeline.frozen import load_autoencoder, load_ldae
    from pipeline.precompute.embed import check_same_autoencoder
    from pipeline.stores.latents import open_latents
    from pipeline.stores.volumes import open_volumes
    from schemas.errors import ContractError

    device = settings.device()
    reconstructor = Reconstructor(
        volumes=open_volumes(volumes),
        latents=open_latents(latents),
        autoencoder=load_autoencoder(folder, device=device),
        ldae=load_ldae(ldae, device=device),
        params=settings.params().evaluate,
        device=device,
    )
    check_same_autoencoder(reconstructor.latents, reconstructor.ldae)
    if reconstructor.autoencoder.digest != reconstructor.latents.attributes.digests["autoencoder"]:
        raise ContractError(f"{latents}: encoded by another autoencoder than {folder}; run encode")
    evaluate_reconstruction(reconstructor, read_manifest(manifest), out)
    for line in read_headline(evaluate=out):
        typer.echo(line)


def _judge_autoencoder(
    settings: Settings, manifest: Path, volumes: Path, ae: Path, out: Path
) -> None:
    from pipeline.cohort.manifest import read_manifest
    from pipeline.evaluation.ae_quality import AeJudge, evaluate_autoencoder
    from pipeline.frozen import load_autoencoder, on_grid
    from pipeline.perceptual import load_lpips
    from pipeline.stores.volumes import open_volumes
    from schemas.metrics import Estimate

    params, device = settings.params().evaluate, settings.device()
    store, weights = open_volumes(volumes), params.lpips_weights
    table = read_manifest(manifest)
    judge = AeJudge(
        autoencoder=on_grid(load_autoencoder(ae, device=device), store.attributes.grid),
        volumes=store,
        device=device,
        lpips=load_lpips(weights, device=device) if weights else None,
    )
    if weights is None:
        typer.echo("LPIPS: left out, no evaluate.lpips_weights was given")
    metrics = evaluate_autoencoder(judge, table[table["split"] == params.split], params, out)
    for name in ("ssim_brain", "ms_ssim_brain", "psnr_brain", "mse_brain", "ssim_whole", "lpips"):
        if name in metrics["reconstruction"]:
            typer.echo(f"{name}: {Estimate(**metrics['reconstruction'][name])}")
    error = metrics["ventricles"].get("median_absolute_relative_error")
    if error:
        typer.echo(f"ventricle volume, median relative error: {Estimate(**error)}")
    collapsed = [str(c["channel"]) for c in metrics["latent"] if c["collapsed"]]
    typer.echo(f"collapsed latent channels: {', '.join(collapsed) or 'none'}")
