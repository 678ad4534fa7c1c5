"""Preprocess and encode what --input names, for `pipeline encode` and `pipeline embed`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stages.common_options import Settings

if TYPE_CHECKING:
    from pipeline.encoding.input_volumes import InputVolumes
    from pipeline.models.frozen import FrozenAutoencoder
    from schemas.grid import Grid, GridParams


@dataclass(frozen=True, slots=True)
class InputGrid:
    """The grid of an input's volumes."""

    grid: "Grid"
    firm: bool
    """Whether it may not be replaced: that of a volume store, or asked for with this call."""


def stored_grid(input_path: Path) -> "GridParams | None":
    """Return the grid of a volume store; None of images, which are preprocessed."""
    from pipeline.sources.kind import detect_source
    from pipeline.stores.volumes import open_volumes

    if detect_source(input_path) != "volumes":
        return None
    return open_volumes(input_path).attributes.grid.as_params()


def input_grid(settings: Settings, input_path: Path, autoencoder: "FrozenAutoencoder") -> InputGrid:
    """Return the grid of the volumes in a store, else the one to preprocess onto.

    Parameters of what was done to the volumes of a store before are refused.
    """
    from pipeline.encoding.input_volumes import grid_asked
    from pipeline.sources.kind import detect_source
    from pipeline.stores.volumes import open_volumes
    from stages.requested_settings import is_given, refuse_other, refuse_set

    if detect_source(input_path) == "volumes":
        attributes = open_volumes(input_path).attributes
        recorded = attributes.params.get("preprocess", {})
        refuse_other(settings, "preprocess", recorded, where=str(input_path), but=set())
        refuse_set(settings, "cohort", f"{input_path} is a store; the scans of a cohort are in it")
        return InputGrid(attributes.grid, firm=True)
    params = settings.params()
    asked = params.preprocess.grid if is_given(params, "preprocess.grid") else None
    # A params.yaml that happens to lie here lists every parameter; it was not given with the call.
    by_hand = any(key.startswith("preprocess.grid") for key in settings.set_by_hand())
    firm = by_hand or settings.params_file is not None
    return InputGrid(grid_asked(asked, autoencoder, firm=firm), firm=firm)


def refuse_contrast(
    settings: Settings, input_path: Path, config: Mapping[str, Any], *, model: str, allowed_by: str
) -> None:
    """Refuse images of another contrast than a model's before they are preprocessed.

    `allowed_by` is the parameter that allows it.
    """
    from pipeline.models.contrast import check_contrast
    from pipeline.sources.kind import detect_source
    from pipeline.stores.volumes import open_volumes

    params = settings.params()
    section, name = allowed_by.split(".")
    if getattr(getattr(params, section), name):
        return
    if detect_source(input_path) == "volumes":
        found = open_volumes(input_path).attributes.contrast
    else:
        from pipeline.cohort.contrast import study_contrast  # it brings pandas

        found = params.preprocess.contrast or study_contrast(params.cohort)
    check_contrast(dict(config), found, source=input_path, model=model, allowed_by=[allowed_by])


def encode_input(
    settings: Settings,
    input_path: Path,
    latents: Path,
    autoencoder: "FrozenAutoencoder",
    *,
    out: Path,
    grid: "Grid",
    replace: bool,
) -> "InputVolumes":
    """Write the latents of an input and say so; images become volumes beside `out` first."""
    from pipeline.encoding.input_volumes import input_volumes
    from pipeline.encoding.run import check_intensity, encode_volumes
    from pipeline.models.frozen import for_volumes, intensity_rule
    from pipeline.stores.volumes import open_volumes

    params = settings.params()
    made = input_volumes(
        input_path,
        out,
        params,
        grid=grid,
        asked=settings.set_by_hand(),
        intensity=intensity_rule(autoencoder.config),
        workers=settings.num_workers(),
        scheduler=settings.scheduler,
        device=settings.device_name.split(",")[0],
    )
    if made.quarantined:
        typer.echo(f"{made.quarantined} scans quarantined, reasons in {made.quarantine}", err=True)
    store = open_volumes(made.volumes)
    check_intensity(store, autoencoder)
    summary = encode_volumes(
        store,
        for_volumes(autoencoder, store.attributes.grid),
        latents,
        params.encode,
        device=settings.devices(),
        replace=replace,
        scheduler=settings.scheduler,
        device_name=settings.device_name,
    )
    typer.echo(
        f"{latents}: {summary.scans} scans, {summary.encoded} encoded now, {summary.reused} from"
        f" before, {summary.seconds:.1f} s"
    )
    return made
