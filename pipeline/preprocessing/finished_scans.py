"""Finished scans of an unfinished run: one file each, in a work folder beside the store."""

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from pipeline.runtime.files import write_atomic, write_json
from pipeline.stores.volumes import VolumeRow


class ScanOutcome(TypedDict, total=False):
    """Outcome of preprocessing one image, kept as JSON: QC numbers, or an error."""

    scan_id: str
    fingerprint: str
    source_digest: str
    method_version: int
    versions: dict[str, str | None]
    """Package → version; None if it is not installed."""
    qc: dict[str, Any]
    """QC numbers; missing where there is an error."""
    notes: list[str]
    """Oddities of the file."""
    timings: dict[str, float]
    """CPU-seconds of each step."""
    error: str
    """Reason for which there is no volume."""
    transient: bool
    """Whether the error may not occur again (out of memory, disk)."""


class FinishedScans:
    """Finished scans in the work folder of a volume store, `<store>.work`."""

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".work")

    def _path(self, scan_id: str, fingerprint: str, suffix: str) -> Path:
        return self.folder / f"{scan_id}-{fingerprint[:12]}{suffix}"

    def write_scan(self, row: VolumeRow, outcome: ScanOutcome) -> None:
        """Write a volume and its outcome, whole or not at all."""
        content = io.BytesIO()
        arrays = {name: getattr(row, name) for name in VolumeRow.__dataclass_fields__}
        np.savez_compressed(content, record=np.array(json.dumps(outcome)), **arrays)
        path = self._path(outcome["scan_id"], outcome["fingerprint"], ".npz")
        write_atomic(path, content.getvalue())

    def write_error(self, outcome: ScanOutcome) -> None:
        """Write the outcome of a scan that cannot be used."""
        write_json(self._path(outcome["scan_id"], outcome["fingerprint"], ".json"), outcome)

    def read_outcome(self, scan_id: str, fingerprint: str) -> ScanOutcome | None:
        """Return the outcome of a finished scan; None if it is not finished or damaged."""
        error = self._path(scan_id, fingerprint, ".json")
        try:
            if error.is_file():
                outcome: ScanOutcome = json.loads(error.read_text())
            else:
                path = self._path(scan_id, fingerprint, ".npz")
                # Opened here: np.load leaves a damaged file open.
                with path.open("rb") as file, np.load(file) as content:
                    outcome = json.loads(str(content["record"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return outcome if outcome.get("fingerprint") == fingerprint else None

    def read_row(self, scan_id: str, fingerprint: str) -> VolumeRow:
        """Return the volume of a finished scan; what an earlier version left out is the default."""
        with np.load(self._path(scan_id, fingerprint, ".npz")) as content:
            names = [name for name in VolumeRow.__dataclass_fields__ if name in content]
            return VolumeRow(**{name: content[name] for name in names})

    def remove(self) -> None:
        """Remove the work folder, once the store is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
