"""Stage 4: every volume through the frozen autoencoder, once."""

from pathlib import Path
from typing import Annotated

import typer

from stages.settings import Settings


def encode(
    settings: Settings,
    *,
    input_path: Annotated[
        Path,
        typer.Option("--input", help="volumes.zarr, folder of NIfTI, BIDS root, or manifest."),
    ],
    out: Annotated[Path, typer.Option(help="latents.zarr to write.")],
    ae: Annotated[
        Path | None,
        typer.Option(help="Autoencoder folder; default: models/ae, else the bundled one."),
    ] = None,
    replace: Annotated[
        bool, typer.Option(help="Remake a store made otherwise; drop scans not in the input.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 1 if any scan is refused.")] = False,
) -> None:
    """Encode scans into a latent store; images are preprocessed first, finished work is kept.

    Example: pipeline encode --input nifti/ --out latents.zarr
    """
    from pipeline.frozen import for_volumes, load_autoencoder
    from pipeline.precompute.encode import check_out, encode_volumes
    from pipeline.precompute.volumes_of import grid_asked, volumes_of
    from pipeline.stores.volumes import open_volumes
    from stages.by_hand import chosen_autoencoder, is_given

    params = settings.params()
    devices = settings.devices()
    folder, which = chosen_autoencoder(settings, ae)
    autoencoder = load_autoencoder(folder, device=devices[0])
    check_out(out, autoencoder, params.encode, replace=replace)
    typer.echo(f"autoencoder: {which}")
    _refuse_overruled(settings, input_path)
    asked = params.preprocess.grid if is_given(params, "preprocess.grid") else None
    made = volumes_of(
        input_path,
        out,
        params,
        grid=grid_asked(asked, autoencoder),
        asked=settings.set_by_hand(),
        workers=settings.num_workers(),
        scheduler=settings.scheduler,
    )
    if made.quarantined:
        typer.echo(f"{made.quarantined} scans quarantined, reasons in {made.quarantine}", err=True)
    store = open_volumes(made.volumes)
    summary = encode_volumes(
        store,
        for_volumes(autoencoder, store.attributes.grid),
        out,
        params.encode,
        device=devices,
        replace=replace,
        scheduler=settings.scheduler,
        device_name=settings.device_name,
    )
    typer.echo(
        f"{out}: {summary.scans} scans, {summary.encoded} encoded now, {summary.reused} from"
        f" before, {summary.seconds:.1f} s"
    )
    if strict and made.quarantined:
        raise typer.Exit(1)


def _refuse_overruled(settings: Settings, input_path: Path) -> None:
    """Refuse parameters of what was done to volumes before."""
    from pipeline.cohort.ingest import detect_source
    from pipeline.stores.volumes import open_volumes
    from stages.by_hand import refuse_other, refuse_set

    if detect_source(input_path) != "volumes":
        return
    recorded = open_volumes(input_path).attributes.params.get("preprocess", {})
    refuse_other(settings, "preprocess", recorded, where=str(input_path), but=set())
    refuse_set(settings, "cohort", f"{input_path} is a store; the scans of a cohort are in it")
