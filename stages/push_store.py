"""Upload a finished store to object storage, or write it into a zip file."""

from pathlib import Path
from typing import Annotated

import typer


def push_store(
    *,
    source: Annotated[Path, typer.Argument(help="A finished store: latents.zarr, volumes.zarr.")],
    target: Annotated[
        str, typer.Argument(help="s3://BUCKET/PATH, gs://BUCKET/PATH, or a file ending in .zip.")
    ],
) -> None:
    """Upload a finished store, its record last; a store that is there is never changed.

    Every digest of the store is checked before. Other commands then read it by that name.

    Example: pipeline push-store data/latents.zarr s3://lab/ldae/latents.zarr
    """
    from pipeline.runtime.progress import counted
    from pipeline.stores.push import push_store as push

    count = push(source, Path(target))
    typer.echo(f"{target}: {counted(count, 'file') if count else 'the same store is there'}")
