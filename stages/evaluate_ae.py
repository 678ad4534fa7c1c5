"""`pipeline evaluate --what ae`: the frozen autoencoder alone, in depth."""

from pathlib import Path

import typer

from stages.common_options import Settings


def judge_autoencoder(
    settings: Settings, manifest: Path, volumes: Path, ae: Path, out: Path
) -> None:
    """Write metrics.json, per_scan.parquet and the error map; print the headline figures."""
    from pipeline.cohort.manifest import read_manifest
    from pipeline.evaluation.autoencoder import AutoencoderScorer, evaluate_autoencoder
    from pipeline.models.contrast import EVALUATE_ANY, check_contrast
    from pipeline.models.frozen import load_autoencoder, on_grid
    from pipeline.models.pretrained import load_lpips
    from pipeline.stores.volumes import open_volumes
    from schemas.metrics import Estimate

    params, device = settings.params().evaluate, settings.device()
    store, weights = open_volumes(volumes), params.lpips_weights
    table = read_manifest(manifest)
    frozen = load_autoencoder(ae, device=device)
    if not params.any_contrast:
        check_contrast(
            frozen.config,
            store.attributes.contrast,
            source=store.path,
            model=f"the autoencoder {ae}",
            allowed_by=[EVALUATE_ANY],
        )
    judge = AutoencoderScorer(
        autoencoder=on_grid(frozen, store.attributes.grid),
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
