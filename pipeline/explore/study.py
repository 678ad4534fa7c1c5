"""The files of a study that the page shows, opened without loading a network."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cohort.manifest import read_manifest
from pipeline.preprocessing.qc_summary import read_qc
from pipeline.runtime.progress import counted
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import VolumeStore, open_volumes
from schemas.errors import ContractError, PipelineError
from schemas.grid import Grid
from schemas.manifest import VOLUMES

Opened = TypeVar("Opened")

NOT_LABELS = ("scan_id", "subject_id", "session_id", "path", "source_digest")
"""Columns of the manifest by which nothing is coloured."""
FIRST_LABELS = ("diagnosis", "age_years", "sex", "site", "qc", "split")
"""Columns that are offered first."""
MOST_GROUPS = 24
"""A column of more different words than this has no colours; neither has one of names or dates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorePaths:
    """Where a study keeps what the page shows; only the manifest must be there."""

    manifest: Path
    latents: Path
    volumes: Path
    semantics: Path
    qc: Path
    probe: Path
    """Folder of directions.json, metrics.json and predictions.parquet."""

    @classmethod
    def of_folder(cls, study: Path) -> "ExplorePaths":
        """Return the files of a study folder as `dvc.yaml` names them."""
        data = study / "data"
        return cls(
            manifest=data / "cohort" / "manifest.csv",
            latents=data / "latents.zarr",
            volumes=data / "volumes.zarr",
            semantics=data / "semantics.zarr",
            qc=data / "qc.csv",
            probe=study / "reports" / "probe",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A column by which people are coloured."""

    name: str
    numbers: list[float | None] | None
    """A value a scan, where the column holds numbers."""
    groups: list[str] = field(default_factory=list)
    """Different words of the column, in order."""
    codes: list[int] = field(default_factory=list)
    """Place of each scan's word in `groups`; -1 where it has none."""

    def document(self) -> dict[str, Any]:
        """Return the column as the page reads it."""
        return {
            "name": self.name,
            "numbers": self.numbers,
            "groups": self.groups,
            "codes": self.codes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreStudy:
    """An opened study."""

    title: str
    paths: ExplorePaths
    people: pd.DataFrame
    """Rows of the manifest whose scans are in a store, in its order."""
    volumes: VolumeStore | None
    y_sem: NDArray[np.float64] | None
    """(scan, dim), NaN where a scan has none."""
    ldae_digest: str | None
    """Of the model that gave y_sem."""
    phantom: bool
    notes: list[str]
    """A sentence for each thing that is missing, with its remedy."""

    @property
    def scan_ids(self) -> list[str]:
        """Return the scans in the order of `people`."""
        return [str(scan) for scan in self.people["scan_id"]]

    @property
    def grid(self) -> Grid | None:
        """Return the grid of the volumes, where there are any."""
        return None if self.volumes is None else self.volumes.attributes.grid

    def labels(self) -> list[Label]:
        """Return the columns by which people can be coloured, the usual ones first."""
        names = [str(name) for name in self.people if name not in NOT_LABELS]
        order = [name for name in FIRST_LABELS if name in names]
        order += [name for name in names if name not in order]
        found = (label_of(self.people[name]) for name in order)
        return [label for label in found if label is not None]

    def volume(self, scan_id: str) -> NDArray[np.uint8]:
        """Return the preprocessed volume (X, Y, Z) of a scan.

        Raises
        ------
        ContractError
            If there is none.
        """
        if self.volumes is None or scan_id not in self.volumes.row_of:
            raise ContractError(
                f"{self.paths.volumes}: {scan_id} has no volume there; run `pipeline preprocess`"
            )
        values = self.volumes.read("volume", self.volumes.row_of[scan_id])
        return np.asarray(values, dtype=np.uint8)


def open_study(paths: ExplorePaths, *, title: str) -> ExploreStudy:
    """Open a study; a part that is missing or damaged becomes a note.

    Raises
    ------
    ContractError
        If it has no manifest, or no store holds a scan of it.
    """
    manifest = read_manifest(paths.manifest)
    notes: list[str] = []
    volumes = _opened(
        paths.volumes, open_volumes, "no scan itself can be shown; run `pipeline preprocess`", notes
    )
    semantics = _opened(
        paths.semantics,
        partial(OpenStore, kind="semantics"),
        "there is no map and no direction; run `pipeline embed`, then `pipeline probe`",
        notes,
    )
    known = set(volumes.row_of if volumes else ()) | set(semantics.row_of if semantics else ())
    if not known:
        raise ContractError(
            f"{paths.manifest}: none of its scans is in {paths.volumes} or {paths.semantics}; run"
            " `dvc repro`, or `pipeline preprocess`, `encode` and `embed`"
        )
    people = manifest[manifest["scan_id"].isin(known)].reset_index(drop=True)
    if people.empty:
        raise ContractError(f"{paths.manifest}: its scans are not those of the stores; run cohort")
    left_out = len(manifest) - len(people)
    if left_out:
        notes.append(f"{counted(left_out, 'scan')} of the manifest are in no store: not shown.")
    people["qc"] = _verdicts(people, paths.qc)
    return ExploreStudy(
        title=title,
        paths=paths,
        people=people,
        volumes=volumes,
        y_sem=None if semantics is None else _codes(people, semantics),
        ldae_digest=None if semantics is None else semantics.attributes.digests.get("ldae"),
        phantom={*VOLUMES, "atrophy"} <= set(manifest.columns),
        notes=notes,
    )


def label_of(column: "pd.Series[Any]") -> Label | None:
    """Return a column as colours, or None where it tells nobody apart or everybody."""
    name = str(column.name)
    if pd.api.types.is_numeric_dtype(column):
        values = [float(v) if np.isfinite(v) else None for v in column.astype(float)]
        return Label(name=name, numbers=values) if len({*values} - {None}) > 1 else None
    words = [("" if pd.isna(v) else str(v)).strip() for v in column]
    groups = sorted({*words} - {""})
    if not 1 < len(groups) <= MOST_GROUPS:
        return None
    place = {word: i for i, word in enumerate(groups)}
    return Label(name=name, numbers=None, groups=groups, codes=[place.get(w, -1) for w in words])


def _opened(
    path: Path, open_it: Callable[[Path], Opened], without: str, notes: list[str]
) -> Opened | None:
    if not path.exists():
        notes.append(f"{path}: not there, so {without}.")
        return None
    try:
        return open_it(path)
    except PipelineError as error:
        notes.append(f"{error}.")
        return None


def _codes(people: pd.DataFrame, semantics: OpenStore) -> NDArray[np.float64]:
    values = np.asarray(semantics.read("y_sem"), dtype=np.float64)
    codes = np.full((len(people), values.shape[1]), np.nan)
    for row, scan in enumerate(people["scan_id"]):
        if scan in semantics.row_of:
            codes[row] = values[semantics.row_of[scan]]
    return codes


def _verdicts(people: pd.DataFrame, path: Path) -> list[str]:
    try:
        status = read_qc(path)["status"].astype(str).to_dict()
    except PipelineError:
        status = {}
    return [status.get(scan, "") for scan in people["scan_id"]]
