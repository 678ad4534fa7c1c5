"""Counterfactuals of `pipeline manipulate` as BIDS-Derivatives."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.bids_export.dataset import write_json_once
from pipeline.bids_export.names import SPACE, ScanNames
from pipeline.labels.scan_records import bids_label
from pipeline.runtime.files import write_atomic
from schemas.errors import ContractError

log = logging.getLogger(__name__)


def export_counterfactuals(
    folder: Path, out: Path, names: Mapping[str, ScanNames], sources: Mapping[str, str]
) -> int:
    """Copy the volumes that `pipeline manipulate` left in a folder; return how many there are.

    Parameters
    ----------
    names
        Scan id → names. Scans that are not in it are left out, with a warning.
    sources
        Scan id → BIDS URI of its file, where it is known.

    Raises
    ------
    ContractError
        If the folder holds none on the MNI152 grid.
    """
    if not folder.is_dir():
        raise ContractError(f"{folder}: no such folder; `pipeline manipulate --out` makes one")
    documents = [d for path in sorted(folder.glob("*_manipulate*.json")) if (d := _read(path))]
    usable = [d for d in documents if d.get("space") == "mni"]
    if not usable:
        found = "native space alone" if documents else "none"
        raise ContractError(
            f"{folder}: expected what `pipeline manipulate --space mni` writes; found {found}"
        )
    written = 0
    for document in usable:
        scan_id = str(document["scan_id"])
        if scan_id not in names:
            log.warning("%s: of %s, which is not in this study; left out", folder, scan_id)
            continue
        for output in document["outputs"]:
            _copy(folder, out, document, output, names[scan_id], sources.get(scan_id))
            written += 1
    return written


def label_of(direction: str, scale: float) -> str:
    """Return the desc- of a counterfactual: `diagnosis:AD` at 1.5 is counterfactualdiagnosisADp1d5.

    BIDS allows letters and digits alone: p and m are the sign, d the decimal point.
    """
    number = f"{scale:+g}".replace("+", "p").replace("-", "m").replace(".", "d")
    return f"counterfactual{bids_label(direction)}{number}"


def _copy(
    folder: Path,
    out: Path,
    document: Mapping[str, Any],
    output: Mapping[str, Any],
    names: ScanNames,
    source: str | None,
) -> None:
    """Copy one volume and write its sidecar, if they are not there already."""
    direction = str(document["options"]["direction"]["name"])
    label = label_of(direction, float(output["scale"]))
    path = out / names.file(f"space-{SPACE}_desc-{label}_{names.suffix}.nii.gz")
    content = (folder / str(output["file"])).read_bytes()
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)
    preprocessed = f"bids::{names.preprocessed.as_posix()}"
    write_json_once(
        path.with_name(path.name.removesuffix(".nii.gz") + ".json"),
        {
            "Description": str(document["note"]),
            "SkullStripped": True,
            "Sources": [preprocessed, *([source] if source else [])],
            "Direction": direction,
            "Scale": output["scale"],
            "ScaleUnit": str(document.get("scale_unit", "")),
        },
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text())
        whole = document["command"] == "manipulate" and "scan_id" in document
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(document) if whole else None
