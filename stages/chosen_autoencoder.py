"""Choose the autoencoder of a command: by --ae, by --set, that of the study, or the bundled one."""

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ParamsError
from stages.common_options import Settings
from stages.requested_settings import refuse_set

if TYPE_CHECKING:
    from schemas.grid import GridParams


def chosen_autoencoder(
    settings: Settings, ae: Path | None, *, grid: "GridParams | None" = None
) -> tuple[Path, str]:
    """Return the folder of the autoencoder to use, and its description in words.

    --ae, else what --set autoencoder.* names, else that of the study, else what the parameters
    name: by default the bundled one for `grid`, else for that of the parameters.

    Raises
    ------
    ParamsError
        If two are given, or the one to be trained is not there yet.
    """
    from pipeline.models.bundled import (
        bundled_autoencoder,
        bundled_description,
        find_autoencoder,
    )
    from pipeline.models.places import STUDY

    params = settings.params()
    grid = grid or params.preprocess.grid
    if ae is not None:
        refuse_set(settings, "autoencoder", f"--ae {ae} is given too; leave one of the two out")
        return find_autoencoder(ae)
    chosen = params.autoencoder
    by_hand = any(key.startswith("autoencoder.") for key in settings.set_by_hand())
    if (STUDY / "config.json").is_file() and (not by_hand or chosen.source == "train"):
        return find_autoencoder(None)
    if chosen.path is not None:
        return chosen.path, f"{chosen.path}"
    if chosen.source == "train":
        raise ParamsError(
            f"autoencoder.source: train, and there is none in {STUDY} yet; run `pipeline train-ae`,"
            " or give --ae FOLDER"
        )
    folder = bundled_autoencoder(grid.zooms, grid.shape, factor=chosen.factor)
    return folder, bundled_description(folder)
