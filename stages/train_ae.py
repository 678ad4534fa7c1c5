"""Stage 3: the frozen autoencoder."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def train_ae(
    context: typer.Context,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv of the cohort stage.")],
    volumes: Annotated[Path, typer.Option(help="volumes.zarr of the preprocess stage.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
) -> None:
    """Obtain the frozen autoencoder: train it, or take the bundled or another one (autoencoder.*).

    Example: pipeline train-ae --manifest data/cohort/manifest.csv --volumes data/volumes.zarr
    --out models/ae
    """
    settings: Settings = context.obj
    from pipeline.stores.volumes import open_volumes
    from stages.requested_settings import refuse_set

    params = settings.params()
    store = open_volumes(volumes)
    from pipeline.models.bundled import adopt_autoencoder, bundled_autoencoder, load_start

    grid = store.attributes.grid
    chosen = params.autoencoder
    if chosen.source != "train":
        refuse_set(
            settings,
            "train_ae",
            f"autoencoder.source is {chosen.source}, so nothing is trained; add --set"
            " autoencoder.source=train",
        )
        source = chosen.path or bundled_autoencoder(grid.zooms[0], grid.shape, factor=chosen.factor)
        adopt_autoencoder(source, out, grid=grid)
        typer.echo(f"{out}: the {chosen.source} autoencoder of {source}; nothing was trained")
        return

    from pipeline.cohort.manifest import read_manifest
    from pipeline.cohort.scan_splits import scans_by_split
    from pipeline.training.autoencoder import train_autoencoder

    device = settings.device()
    start = params.train_ae.start_from
    metrics = train_autoencoder(
        store,
        scans_by_split(read_manifest(manifest)),
        params.train_ae,
        out,
        device=device,
        start=None
        if start is None
        else load_start(start, zooms=grid.zooms[0], factor=chosen.factor),
    )
    typer.echo(f"{out}: L1 {metrics['l1']:.4f}, {metrics['seconds']:.0f} s of training")
