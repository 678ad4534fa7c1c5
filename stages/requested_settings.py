"""Options given by hand: refuse a value that cannot be applied, warn of an unused one."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from schemas.changes import flattened
from schemas.errors import ParamsError

if TYPE_CHECKING:
    from schemas.grid import Grid
    from schemas.params import Params
    from stages.common_options import Settings

log = logging.getLogger(__name__)

APPLICATION = ("autoencoder", "evaluate", "preprocess")
READS: dict[str, tuple[str, ...]] = {
    "cohort": ("cohort", "autoencoder"),
    "preprocess": ("preprocess",),
    "train_ae": ("autoencoder", "train_ae"),
    "encode": ("autoencoder", "cohort", "preprocess", "encode"),
    "train_ldm": ("cohort", "train_ldm", "train_ldae.source", "train_ldae.path"),
    "train_ldae": ("cohort", "train_ldm", "train_ldae"),
    "embed": ("autoencoder", "cohort", "preprocess", "encode", "embed"),
    "crossfit": ("autoencoder", "cohort", "train_ldm", "train_ldae", "embed", "crossfit"),
    "probe": ("probe", "autoencoder"),
    "evaluate": ("autoencoder", "evaluate", "probe", "cohort.phantom", "cohort.source"),
    "train_voxel_dae": ("cohort", "evaluate"),
    "scanner": ("probe",),
    "brain_age": ("probe",),
    "longitudinal": (),
    "features": (),
    "regions": (),
    "qc": ("preprocess",),
    "bids": ("cohort", "preprocess", "encode", "embed", "probe", "report"),
    "export_bids": ("cohort.source", "cohort.input", "cohort.leave_out", "preprocess.max_bytes"),
    "verify": ("autoencoder", "encode"),
    "push_store": (),
    "explore": APPLICATION,
    "reconstruct": APPLICATION,
    "vary": APPLICATION,
    "generate": APPLICATION,
    "manipulate": APPLICATION,
    "interpolate": APPLICATION,
    "forecast": APPLICATION,
    "doctor": (),
    "info": (),
    "export_ae": (),
    "export_ldae": (),
    "import_ae": (),
    "import_ldae": (),
    "docs": (),
    "bench": (),
}
"""Sections of parameters, or parameters, that a command reads; `init` and `report`, not listed,
read all."""
SPREADS = {"cohort", "preprocess", "encode", "embed", "export_bids", "bids"}
"""Commands with worker processes."""
SCHEDULED = {"preprocess", "encode", "embed"}
"""Commands that dask workers can take over."""


def warn_unread(settings: "Settings", command: str) -> None:
    """Warn of options and parameters given by hand that play no part in a command."""
    shown = command.replace("_", "-")
    read = READS.get(command)
    for key in settings.set_by_hand() if read is not None else ():
        if not any(f"{key}.".startswith(f"{part}.") for part in read or ()):
            parts = [part if "." in part else f"{part}.*" for part in read or ()]
            known = ", ".join(parts) or "no parameters"
            log.warning("--set %s: plays no part, `pipeline %s` reads %s", key, shown, known)
    if settings.workers is not None and command not in SPREADS:
        log.warning("--workers: plays no part in `pipeline %s`", shown)
    if settings.scheduler is not None and command not in SCHEDULED:
        log.warning("--scheduler: plays no part in `pipeline %s`", shown)
    elif settings.scheduler is not None and settings.workers is not None:
        log.warning("--workers: plays no part beside --scheduler, whose workers do the work")


def refuse_set(
    settings: "Settings", section: str, reason: str, *, but: tuple[str, ...] = ()
) -> None:
    """Refuse a parameter of a section (or subsection) that was given with --set, those `but` apart.

    Raises
    ------
    ParamsError
        Naming it, with the reason why it cannot be done.
    """
    for key in settings.set_by_hand():
        if f"{key}.".startswith(f"{section}.") and key not in but:
            raise ParamsError(f"--set {key}: {reason}")


def refuse_other(
    settings: "Settings", section: str, recorded: Mapping[str, Any], *, where: str, but: set[str]
) -> None:
    """Refuse a parameter given with --set that differs from the one that a store was made with.

    `recorded` is the section that the store records; keys of the section in `but` may differ.

    Raises
    ------
    ParamsError
        Naming the parameter and both values.
    """
    before = flattened(recorded)
    for key, value in settings.set_by_hand().items():
        name = key.removeprefix(f"{section}.")
        if name == key or name.split(".")[0] in but or name not in before:
            continue
        given = list(value) if isinstance(value, tuple) else value
        if given != before[name]:
            raise ParamsError(
                f"--set {key}={value}: {where} was preprocessed with {before[name]}; leave it out,"
                " or run `pipeline preprocess` with it"
            )


def refuse_grid(settings: "Settings", grid: "Grid") -> None:
    """Refuse a grid given with --set other than that of the models, which images are resampled to.

    Raises
    ------
    ParamsError
        Naming the models' grid.
    """
    from schemas.grid import times

    asked = {key for key in settings.set_by_hand() if key.startswith("preprocess.grid.")}
    if not asked:
        return
    wanted = settings.params().preprocess.grid
    if grid.shape != wanted.shape or abs(grid.zooms[0] - wanted.zooms) > 1e-3:
        raise ParamsError(
            f"--set {min(asked)}: the models take {times(grid.shape)} voxels of"
            f" {grid.zooms[0]:g} mm alone; leave it out"
        )


def is_given(params: "Params", key: str) -> bool:
    """Return whether a parameter was given, by a file or by --set, and is no default."""
    values: Any = params
    for name in key.split("."):
        if name not in values.model_fields_set:
            return False
        values = getattr(values, name)
    return True
