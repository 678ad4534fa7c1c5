"""Stage 4: every volume through the frozen autoencoder, once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.common_options import Settings

if TYPE_CHECKING:
    from pipeline.models.frozen import FrozenAutoencoder
    from schemas.grid import Grid


def encode(
    context: typer.Context,
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
    settings: Settings = context.obj
    from pipeline.encoding.input_volumes import input_volumes
    from pipeline.encoding.run import check_intensity, check_out, encode_volumes
    from pipeline.models.frozen import for_volumes, intensity_rule, load_autoencoder
    from pipeline.stores.volumes import open_volumes
    from stages.chosen_autoencoder import chosen_autoencoder

    params = settings.params()
    devices = settings.devices()
    folder, which = chosen_autoencoder(settings, ae)
    autoencoder = load_autoencoder(folder, device=devices[0])
    check_out(out, autoencoder, params.encode, replace=replace)
    typer.echo(f"autoencoder: {which}")
    made = input_volumes(
        input_path,
        out,
        params,
        grid=_grid_of(settings, input_path, autoencoder),
        asked=settings.set_by_hand(),
        intensity=intensity_rule(autoencoder.config),
        workers=settings.num_workers(),
        scheduler=settings.scheduler,
    )
    if made.quarantined:
        typer.echo(f"{made.quarantined} scans quarantined, reasons in {made.quarantine}", err=True)
    store = open_volumes(made.volumes)
    check_intensity(store, autoencoder)
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


def _grid_of(settings: Settings, input_path: Path, autoencoder: "FrozenAutoencoder") -> "Grid":
    """Return the grid to preprocess onto; refuse parameters of what was done to volumes before."""
    from pipeline.cohort.ingest import detect_source
    from pipeline.encoding.input_volumes import grid_asked
    from pipeline.stores.volumes import open_volumes
    from stages.requested_settings import is_given, refuse_other, refuse_set

    if detect_source(input_path) == "volumes":
        recorded = open_volumes(input_path).attributes.params.get("preprocess", {})
        refuse_other(settings, "preprocess", recorded, where=str(input_path), but=set())
        refuse_set(settings, "cohort", f"{input_path} is a store; the scans of a cohort are in it")
        return autoencoder.grid
    params = settings.params()
    asked = params.preprocess.grid if is_given(params, "preprocess.grid") else None
    # A params.yaml that happens to lie here lists every parameter; it was not given with the call.
    by_hand = any(key.startswith("preprocess.grid") for key in settings.set_by_hand())
    return grid_asked(asked, autoencoder, firm=by_hand or settings.params_file is not None)
