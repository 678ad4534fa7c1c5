"""The files at the root of a BIDS derivative: what it is, what made it, what a validator skips."""

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.runtime.files import write_atomic, write_json, writing_to
from schemas.errors import ContractError

BIDS_VERSION = "1.10.0"
GENERATOR = "ldae-pipeline"
DESCRIPTION = "dataset_description.json"
REQUIRED = ("Name", "BIDSVersion", "DatasetType", "GeneratedBy")
"""Keys that a derivative must have; the validator says nothing of some that are missing."""
IGNORED = ("*_xfm.txt", "*.html", ".*.lock")
"""What BIDS has no name for: transforms and pages."""
README = files("pipeline.bids_export") / "templates" / "README.md"


def describe(out: Path, source: Path | None) -> None:
    """Write the root's files into `out`, made where missing; `source` is the BIDS dataset.

    Raises
    ------
    ContractError
        If `out` holds other things than a derivative of this pipeline, or is the source.
    """
    check_place(out, source)
    content: dict[str, Any] = {
        "Name": "Latent diffusion autoencoder: preprocessed images and semantic codes",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": GENERATOR, "Version": __version__}],
    }
    if source is not None:
        link = Path(os.path.relpath(source.resolve(), out.resolve())).as_posix()
        content["SourceDatasets"] = [{"URL": link} | _published(source)]
        content["DatasetLinks"] = {"raw": link}
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        _write_once(out / DESCRIPTION, json.dumps(content, indent=2) + "\n")
        _write_once(out / "README.md", README.read_text())
        _write_once(out / ".bidsignore", "\n".join(IGNORED) + "\n")


def check_place(out: Path, source: Path | None) -> None:
    """Refuse a folder that a derivative must not be written to.

    Raises
    ------
    ContractError
        If `out` is the source or lies among its subjects, or holds something else.
    """
    if source is not None:
        whole, root = out.resolve(), source.resolve()
        if whole == root:
            raise ContractError(
                f"{out}: is the dataset itself; give another folder, such as"
                f" {source / 'derivatives' / 'ldae'}"
            )
        if whole.is_relative_to(root) and whole.relative_to(root).parts[0].startswith("sub-"):
            raise ContractError(
                f"{out}: lies among the subjects of {source}; give a folder outside, or below"
                f" {source / 'derivatives'}"
            )
    if out.is_file():
        raise ContractError(f"{out}: a file is where a folder is wanted; choose another place")
    if out.is_dir() and any(p for p in out.iterdir() if not p.name.startswith(".")):
        names = [entry.get("Name") for entry in generators(out)]
        if GENERATOR not in names:
            raise ContractError(
                f"{out}: holds other files and no derivative of {GENERATOR}; give an empty folder"
            )


def read_description(root: Path) -> dict[str, Any]:
    """Return the dataset_description.json of a dataset; {} where there is none to be read."""
    try:
        content = json.loads((root / DESCRIPTION).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def generators(root: Path) -> list[dict[str, Any]]:
    """Return the entries of GeneratedBy of a dataset."""
    entries = read_description(root).get("GeneratedBy")
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _published(source: Path) -> dict[str, str]:
    doi = read_description(source).get("DatasetDOI")
    return {"DOI": doi} if isinstance(doi, str) and doi else {}


def _write_once(path: Path, text: str) -> None:
    """Write a file unless it is as it should be: nothing to do leaves nothing touched."""
    if not path.is_file() or path.read_text() != text:
        write_atomic(path, text)


def write_json_once(path: Path, value: Any) -> None:
    """Write indented JSON unless the file holds it already."""
    try:
        same = json.loads(path.read_text()) == value
    except (OSError, ValueError):
        same = False
    if not same:
        write_json(path, value)
