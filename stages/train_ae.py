"""Stage 3: the compression autoencoder."""

from pathlib import Path
from typing import Annotated

import typer

from stages.settings import Settings


def train_ae(
    settings: Settings,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv of the cohort stage.")],
    volumes: Annotated[Path, typer.Option(help="volumes.zarr of the preprocess stage.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
) -> None:
    """Train the autoencoder on the training split and freeze it.

    Example: pipeline train-ae --manifest data/cohort/manifest.csv --volumes data/volumes.zarr
    --out models/ae
    """
    from pipeline.cohort.manifest import read_manifest
    from pipeline.cohort.scan_splits import scans_by_split
    from pipeline.stores.volumes import open_volumes
    from pipeline.training.autoencoder import train_autoencoder

    metrics = train_autoencoder(
        open_volumes(volumes),
        scans_by_split(read_manifest(manifest)),
        settings.params().train_ae,
        out,
        device=settings.device(),
    )
    typer.echo(f"{out}: L1 {metrics['l1']:.4f}, {metrics['seconds']:.0f} s of training")
