"""Check a store against its recorded digests."""

from pathlib import Path
from typing import Annotated

import typer

from stages.settings import Settings


def verify(
    settings: Settings,  # noqa: ARG001 (every command takes the common options)
    *,
    store: Annotated[Path, typer.Argument(help="Any store of this project.")],
) -> None:
    """Read a whole store and name the scans that are damaged; exit code 1 if there are any.

    Example: pipeline verify data/latents.zarr
    """
    from pipeline.stores.reading import verify_store

    hurt = verify_store(store)
    for scan_id, reason in hurt.items():
        typer.echo(f"{scan_id}: {reason}")
    typer.echo(f"{store}: {'sound' if not hurt else f'{len(hurt)} scans damaged'}")
    if hurt:
        raise typer.Exit(1)
