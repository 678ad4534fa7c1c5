"""Names of scans on the command line: ids of a store, and image files. Loads no network."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from pipeline.runtime.progress import few
from pipeline.sources.file_kinds import READ as SUFFIXES
from pipeline.stores.latents import LatentStore
from schemas.errors import ContractError, ParamsError


def is_image(text: str) -> bool:
    """Tell whether a user means a file and not a scan id."""
    return text.lower().endswith(SUFFIXES)


def stem_of(path: Path) -> str:
    """Return a file's name without its image suffix, and without BIDS' `_T1w`."""
    name = path.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)].removesuffix("_T1w")
    return name


def scan_id_of(name: str) -> str:
    """Return the id of a scan, by which its output files are named."""
    return stem_of(Path(name)) if is_image(name) else name


def check_names(names: Sequence[str], latents: LatentStore | None) -> None:
    """Refuse scans that cannot be opened before any work is done.

    Raises
    ------
    ContractError
        If a scan id is not in the store, or a file is not there.
    ParamsError
        If no store is given for scan ids.
    """
    ids = [name for name in names if not is_image(name)]
    if ids and latents is None:
        raise ParamsError(f"{ids[0]}: give the --latents that hold it, or a file as --input")
    if latents is not None:
        missing = [name for name in ids if name not in latents.row_of]
        if missing:
            known = list(latents.row_of)
            near = get_close_matches(missing[0], known, 3)
            known = [*near, *(name for name in known if name not in near)]
            several = f" ({len(missing)} of the {len(ids)} asked for)" if len(ids) > 1 else ""
            raise ContractError(
                f"{latents.path}: {few(missing)} not in the store{several}; it has"
                f" {few(known, len(near) or 3)}"
            )
    absent = [name for name in names if is_image(name) and not Path(name).is_file()]
    if absent:
        raise ContractError(f"{absent[0]}: no such file ({len(absent)} of {len(names)} inputs)")
