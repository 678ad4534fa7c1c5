"""Features of a frozen network beside y_sem, a table that the probe takes as a rival."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.common_options import Settings


def features(
    context: typer.Context,
    *,
    volumes: Annotated[Path, typer.Option(help="volumes.zarr of the preprocess stage.")],
    out: Annotated[Path, typer.Option(help="CSV to write: one row a scan.")],
    network: Annotated[
        Literal["uncnn"], typer.Option(help="Whose features: uncnn, of random weights.")
    ] = "uncnn",
) -> None:
    """Write another network's features of every scan, as a rival of y_sem for `pipeline probe`.

    Name the table in params.yaml, as `probe.rivals: {uncnn: data/uncnn.csv}`.

    Example: pipeline features --volumes data/volumes.zarr --out data/uncnn.csv
    """
    settings: Settings = context.obj
    from pipeline.encoding.uncnn_features import write_uncnn_features
    from pipeline.stores.volumes import open_volumes

    store = open_volumes(volumes)
    computed = write_uncnn_features(store, out, device=settings.device())
    kept = len(store.attributes.scan_ids) - computed
    typer.echo(f"{out}: {network}, {computed} scans computed, {kept} kept")
