"""What a study leaves that becomes BIDS-Derivatives, opened and matched scan by scan."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.bids_export.names import ScanNames, all_names
from pipeline.bids_export.scan_files import ScanTask
from pipeline.cohort.manifest import read_manifest
from pipeline.imaging.qc import NUMBERS
from pipeline.preprocessing.qc_summary import read_qc
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import VolumeStore, open_volumes
from schemas.errors import ContractError

QC_COLUMNS = {
    "status": "verdict: pass, warn, fail (refused), error (no volume)",
    "reasons": "what led to the verdict",
    "brain_ml": "volume of the brain mask (ml)",
    "ncc": "correlation with the template inside its brain mask",
    "dice": "overlap of brain mask and template mask (Dice)",
    "white_grey": "white matter brighter than grey, in standard deviations of the brain",
    "grey_fluid": "grey matter brighter than fluid, in standard deviations of the brain",
    "scaling": "determinant of the affine from the scan to the template",
    "coverage": "share of the template brain inside the field of view",
    "turned": "rotation from the template's pose (degrees)",
    "snr": "signal-to-noise ratio",
    "foreground": "share of the grid's voxels that are brain",
    "strip_method": "method of skull stripping",
}
"""Columns of the table of quality control → what they hold."""
assert {*NUMBERS, "status", "reasons", "strip_method"} == set(QC_COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFiles:
    """Where a study keeps what is exported."""

    manifest: Path
    volumes: Path
    qc: Path
    semantics: Path
    """May be absent."""
    report: Path
    """The HTML page; may be absent."""
    source: Path | None = None
    """The BIDS dataset that the scans came from."""
    leave_out: tuple[str, ...] = ()
    """Columns of participants.tsv that stay behind."""

    @classmethod
    def of_folder(
        cls, study: Path, *, source: Path | None = None, leave_out: tuple[str, ...] = ()
    ) -> "StudyFiles":
        """Return the files of a study folder as `dvc.yaml` names them."""
        data = study / "data"
        return cls(
            manifest=data / "cohort" / "manifest.csv",
            volumes=data / "volumes.zarr",
            qc=data / "qc.csv",
            semantics=data / "semantics.zarr",
            report=study / "reports" / "report.html",
            source=source,
            leave_out=leave_out,
        )


class Study:
    """An opened study.

    Raises
    ------
    ContractError
        If a file is missing, or does not fit the others.
    """

    def __init__(self, files: StudyFiles) -> None:
        self.files = files
        self.manifest = read_manifest(files.manifest)
        rows: list[dict[str, Any]] = [
            {str(key): value for key, value in row.items()}
            for row in self.manifest.to_dict("records")
        ]
        self.names = all_names(rows)
        self.volumes: VolumeStore = open_volumes(files.volumes)
        unknown = [s for s in self.volumes.attributes.scan_ids if s not in self.names]
        if unknown:
            raise ContractError(
                f"{files.volumes}: {len(unknown)} scans are not in {files.manifest}, first"
                f" {unknown[0]}; run `pipeline preprocess` again"
            )
        self.qc = read_qc(files.qc) if files.qc.is_file() else pd.DataFrame()
        self.semantics: OpenStore | None = None
        if files.semantics.exists():
            self.semantics = OpenStore(files.semantics, kind="semantics")
        folder = files.manifest.parent.absolute()
        self.images = {str(row["scan_id"]): folder / str(row["path"]) for row in rows}

    @property
    def exported(self) -> dict[str, ScanNames]:
        """Return scan id → names of the scans that have a volume."""
        return {scan: self.names[scan] for scan in self.volumes.attributes.scan_ids}

    def qc_of(self, scan_id: str) -> dict[str, Any]:
        """Return the verdict and the numbers of a scan; {} where quality control has none."""
        if scan_id not in self.qc.index:
            return {}
        row = self.qc.loc[scan_id]
        cells = {name: row.get(name) for name in QC_COLUMNS}
        known = {k: None if pd.isna(v) or v == "" else _plain(v) for k, v in cells.items()}
        # A column of whole numbers is one of integers: 1 and 1.0 are the same verdict.
        return {k: float(v) if isinstance(v, int) else v for k, v in known.items()}

    def sources(self) -> dict[str, str]:
        """Return scan id → BIDS URI of the file it came from, for files of the BIDS dataset."""
        root = self.files.source
        if root is None:
            return {}
        uris, top = {}, os.path.normpath(root.absolute())
        for scan_id, path in self.images.items():
            inside = Path(os.path.relpath(os.path.normpath(path), top))
            if ".." not in inside.parts:
                uris[scan_id] = f"bids:raw:{inside.as_posix()}"
        return uris

    def tasks(self, out: Path, max_bytes: int) -> dict[str, list[ScanTask]]:
        """Return participant → its scans to write."""
        attributes, sources = self.volumes.attributes, self.sources()
        recorded: Mapping[str, Any] = attributes.params.get("preprocess", {})
        tasks: dict[str, list[ScanTask]] = {}
        for row, scan_id in enumerate(attributes.scan_ids):
            names, image = self.names[scan_id], self.images[scan_id]
            task = ScanTask(
                names=names,
                volumes=self.files.volumes,
                row=row,
                fingerprint=attributes.fingerprints[row],
                out=out,
                image=image if image.is_file() else None,
                source=sources.get(scan_id),
                linear=recorded.get("registration") != "syn",
                preprocessing=recorded,
                qc=self.qc_of(scan_id),
                max_bytes=max_bytes,
            )
            tasks.setdefault(names.participant, []).append(task)
        return tasks


def _plain(value: Any) -> Any:
    """Return a cell as JSON has it."""
    return value.item() if hasattr(value, "item") else value
