"""The baseline: a diffusion autoencoder of voxels, with the LDAE's own networks and training."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def train_voxel_dae(
    context: typer.Context,
    *,
    volumes: Annotated[Path, typer.Option(help="volumes.zarr of the preprocess stage.")],
    out: Annotated[Path, typer.Option(help="Model folder to write; stage 1 goes beside it.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="manifest.csv with the split; without it, subjects are split anew."),
    ] = None,
) -> None:
    """Train a voxel-space diffusion autoencoder, to compare with in `evaluate --voxel-dae`.

    Example: pipeline train-voxel-dae --volumes data/volumes.zarr
    --manifest data/cohort/manifest.csv --out models/voxel-dae
    """
    settings: Settings = context.obj
    from pipeline.cohort.scan_splits import split_of_store
    from pipeline.models.frozen import load_diffusion
    from pipeline.training.latent_diffusion import train_denoiser, train_ldae
    from pipeline.training.voxel_latents import VoxelsAsLatents

    params, device = settings.params(), settings.device()
    sizes = params.evaluate.voxel_dae
    store = VoxelsAsLatents(volumes)
    scan_ids = split_of_store(store.attributes.scan_ids, manifest, params.cohort.split)
    stage_1 = out.with_name(out.name + "-ldm")
    train_denoiser(store, scan_ids, sizes.train_ldm, stage_1, device=device)
    frozen = load_diffusion(stage_1, device=device)
    metrics = train_ldae(store, scan_ids, frozen, sizes.train_ldae, out, device=device)
    typer.echo(f"{out}: loss {metrics['loss']:.4f}, {metrics['seconds']:.0f} s of training")
