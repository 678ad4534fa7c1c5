"""Check a store against its recorded digests, and heal it."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def verify(
    context: typer.Context,
    *,
    store: Annotated[Path, typer.Argument(help="Any store of this project.")],
    repair: Annotated[
        bool, typer.Option(help="Encode the damaged scans of a latent store again.")
    ] = False,
    volumes: Annotated[
        Path | None,
        typer.Option(
            help="With --repair: the volumes.zarr it was made from; default: that of its folder."
        ),
    ] = None,
    ae: Annotated[
        Path | None,
        typer.Option(help="With --repair: the autoencoder that made it; default as in encode."),
    ] = None,
) -> None:
    """Read a whole store and name the scans that are damaged; exit code 1 if there are any.

    Example: pipeline verify data/latents.zarr --repair --volumes data/volumes.zarr --ae models/ae
    """
    settings: Settings = context.obj
    from pipeline.stores.location import is_folder, shown
    from pipeline.stores.open_store import RecordError
    from pipeline.stores.verify import verify_store
    from schemas.errors import ParamsError

    if repair and not is_folder(store):
        raise ParamsError(
            f"--repair {shown(store)}: mends a folder alone; repair the store that was uploaded,"
            " then upload it under another name"
        )
    if repair:
        _repair(settings, store, volumes, ae)
    try:
        hurt = verify_store(store)
    except RecordError as error:
        for scan_id in error.scan_ids or ("every scan",):
            typer.echo(f"{scan_id}: {error}")
        typer.echo(f"{shown(store)}: all scans damaged")
        raise typer.Exit(1) from error
    for scan_id, reason in hurt.items():
        typer.echo(f"{scan_id}: {reason}")
    typer.echo(f"{shown(store)}: {'sound' if not hurt else f'{len(hurt)} scans damaged'}")
    if hurt:
        raise typer.Exit(1)


def _repair(settings: Settings, store: Path, volumes: Path | None, ae: Path | None) -> None:
    from pipeline.encoding.input_volumes import find_volumes
    from schemas.errors import ParamsError

    volumes = volumes or find_volumes(store)
    if volumes is None:
        raise ParamsError(
            "--repair: needs --volumes, those that made this latent store; other stores are made"
            " again by `pipeline preprocess` or `pipeline embed`"
        )
    from pipeline.encoding.repair import repair_latents
    from pipeline.models.frozen import for_volumes, load_autoencoder
    from pipeline.stores.volumes import open_volumes
    from stages.chosen_autoencoder import chosen_autoencoder

    devices = settings.devices()
    opened = open_volumes(volumes)
    folder = chosen_autoencoder(settings, ae, grid=opened.attributes.grid.as_params())[0]
    autoencoder = load_autoencoder(folder, device=devices[0])
    count = repair_latents(
        store,
        opened,
        for_volumes(autoencoder, opened.attributes.grid),
        settings.params().encode,
        devices=devices,
    )
    typer.echo(f"{store}: {count} scans encoded again")
