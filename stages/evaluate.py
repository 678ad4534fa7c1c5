"""Stage 10: evaluate the trained models on held-out subjects."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.common_options import Settings


def evaluate(
    context: typer.Context,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv with the split.")],
    volumes: Annotated[Path, typer.Option(help="volumes.zarr of the preprocess stage.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics, tables a scan, and pictures.")],
    ae: Annotated[
        Path | None,
        typer.Option(help="Autoencoder folder; default: models/ae, else the bundled one."),
    ] = None,
    latents: Annotated[
        Path | None, typer.Option(help="latents.zarr of the encode stage (study).")
    ] = None,
    ldae: Annotated[Path | None, typer.Option(help="Model of train-ldae (study).")] = None,
    directions: Annotated[
        Path | None,
        typer.Option(help="directions.json of the probe stage, for the dose-response."),
    ] = None,
    crossfit: Annotated[
        Path | None,
        typer.Option(
            help="semantics.zarr of the crossfit stage, to fit the prior of generated brains to."
        ),
    ] = None,
    voxel_dae: Annotated[
        Path | None, typer.Option(help="Model of train-voxel-dae, as a baseline.")
    ] = None,
    what: Annotated[
        Literal["study", "ae"], typer.Option(help="The study, or the autoencoder alone in depth.")
    ] = "study",
) -> None:
    """Judge reconstruction, manipulation, interpolation and generation on held-out subjects.

    `--what ae`: SSIM, MS-SSIM, PSNR, MSE, ventricle volumes, five round trips in a row, what each
    latent channel carries, speed and memory.

    Example: pipeline evaluate --manifest data/cohort/manifest.csv --volumes data/volumes.zarr
    --latents data/latents.zarr --ae models/ae --ldae models/ldae
    --directions reports/probe/directions.json --out reports/evaluate
    """
    settings: Settings = context.obj
    from schemas.errors import ParamsError
    from stages.chosen_autoencoder import chosen_autoencoder

    if what == "ae":
        from stages.evaluate_ae import judge_autoencoder

        folder, which = chosen_autoencoder(settings, ae)
        typer.echo(f"autoencoder: {which}")
        judge_autoencoder(settings, manifest, volumes, folder, out)
        return
    if latents is None or ldae is None:
        raise ParamsError("evaluate: --latents and --ldae are needed, or --what ae")

    from pipeline.stores.latents import open_latents
    from pipeline.stores.volumes import open_volumes

    volume_store, store = open_volumes(volumes), open_latents(latents)
    folder, _ = chosen_autoencoder(settings, ae)
    from pipeline.applications.inputs import check_latents
    from pipeline.cohort.manifest import read_manifest
    from pipeline.evaluation.evaluate import evaluate_study
    from pipeline.models.inference import load_models, load_voxel_models
    from pipeline.models.pretrained import load_lpips
    from pipeline.stores.out_of_fold import read_out_of_fold
    from pipeline.stores.provenance import check_same_scans
    from pipeline.study.study import Study
    from stages.headline import read_headline

    params = settings.params()
    device = settings.device()
    weights = params.evaluate.lpips_weights
    models = load_models(folder, ldae, params.evaluate, device=device, store=store)
    study = Study(
        models=models,
        volumes=volume_store,
        latents=store,
        manifest=read_manifest(manifest),
        params=params.evaluate,
        probe=params.probe,
        directions=directions,
        out_of_fold=None
        if crossfit is None
        else read_out_of_fold(crossfit, ldae=models.ldae.digest, latents=store),
        voxel_dae=None
        if voxel_dae is None
        else load_voxel_models(
            voxel_dae, volume_store.attributes.grid, params.evaluate, device=device
        ),
        phantom=params.cohort.phantom if params.cohort.source == "phantom" else None,
        lpips=None if weights is None else load_lpips(weights, device=device),
    )
    check_latents(study.latents, study.models)
    check_same_scans(study.latents, study.volumes)
    evaluate_study(study, out)
    for line in read_headline(evaluate=out):
        typer.echo(line)
