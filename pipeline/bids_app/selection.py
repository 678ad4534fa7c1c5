"""Which participants and sessions of a BIDS dataset a call is about."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.bids_export.dataset import DESCRIPTION, generators, read_description
from pipeline.labels.scan_records import natural_key, prefixed
from pipeline.runtime.progress import few
from schemas.errors import ContractError, ParamsError


def check_dataset(root: Path) -> None:
    """Refuse what is no raw BIDS dataset.

    Raises
    ------
    ContractError
        If the folder is missing, has no subjects, or is a derivative.
    """
    if not root.is_dir():
        raise ContractError(f"{root}: no such folder; expected a BIDS dataset")
    if read_description(root).get("DatasetType") == "derivative" or generators(root):
        names = [str(entry.get("Name")) for entry in generators(root)]
        made = f" of {few(names)}" if names else ""
        raise ContractError(
            f"{root / DESCRIPTION}: a derivative{made}; give the raw dataset that it was made of"
        )
    if not participants_of(root):
        raise ContractError(f"{root}: no folder sub-<label>; expected a BIDS dataset")


def participants_of(root: Path) -> list[str]:
    """Return sub-<label> of all subjects that have a folder."""
    folders = [path.name for path in root.glob("sub-*") if path.is_dir()]
    return sorted({prefixed("sub", name) for name in folders}, key=natural_key)


def chosen_participants(root: Path, labels: Sequence[str]) -> list[str]:
    """Return sub-<label> of the labels asked for, with or without `sub-`; all if there are none.

    Raises
    ------
    ParamsError
        If a label matches nobody.
    """
    present = participants_of(root)
    return _chosen("sub", labels, present, str(root)) if labels else present


def chosen_sessions(root: Path, labels: Sequence[str], participants: Sequence[str]) -> list[str]:
    """Return ses-<label> of the labels asked for; [] if there are none.

    Raises
    ------
    ParamsError
        If no participant chosen has such a session.
    """
    wanted = set(participants)
    present = {
        prefixed("ses", path.name)
        for path in root.glob("sub-*/ses-*")
        if path.is_dir() and prefixed("sub", path.parent.name) in wanted
    }
    return _chosen("ses", labels, sorted(present, key=natural_key), str(root))


OPTIONS = {"sub": "--participant-label", "ses": "--session-label"}


def _label(kind: str, name: str) -> str:
    """Return the label of a name as one types it; quotes where no letter or digit is left."""
    return name.removeprefix(f"{kind}-") or "''"


def _chosen(kind: str, labels: Iterable[str], present: Sequence[str], where: str) -> list[str]:
    wanted = list(dict.fromkeys(prefixed(kind, label) for label in labels))
    missing = [name for name in wanted if name not in present]
    if missing:
        has = few([name.removeprefix(f"{kind}-") for name in present], 8) or "none"
        raise ParamsError(
            f"{OPTIONS[kind]} {' '.join(_label(kind, n) for n in missing)}: not in"
            f" {where}, which has {has}"
        )
    return wanted
