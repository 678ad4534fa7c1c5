"""What is compared: volumes made of a scan with its own, and visits of one person."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cohort.subjects import subjects_of
from pipeline.imaging.brain import brain_of
from pipeline.imaging.geometry import sample
from pipeline.imaging.halfway import halfway
from pipeline.stores.volumes import VolumeRow, VolumeStore
from schemas.errors import ContractError
from schemas.grid import Grid

COMMANDS = {"manipulate": "scale", "interpolate": "alpha", "forecast": "months_after"}
"""Commands whose folders can be compared, and the number that tells their volumes apart."""

COMPARED = ("last visit", "mean")
"""Of what a forecast writes: the maps of its draws' spread are no brains."""

Volume = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeFrame:
    """The grid of a scan's file, and its way to the grid of the volumes."""

    to_mni: NDArray[np.float64]
    """(4, 4): native world to MNI152 world (mm)."""
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]

    @property
    def head_per_template(self) -> float:
        """Return the millilitres of the head for one of template space."""
        return 1 / abs(float(np.linalg.det(self.to_mni[:3, :3])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One volume, and those that it is compared with."""

    scan_id: str
    subject_id: str
    before: Volume
    after: dict[str, Volume]
    """Group (`scale +1.00`, `later visit`) to volume."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Group to how far its volume lies from `before`, where volumes follow a course from there."""
    native: NativeFrame | None = None
    details: dict[str, Any] = field(default_factory=dict)
    """Columns that the rows of this case get."""

    def courses(self) -> list[list[str]]:
        """Return the groups, those to one side of `before` together, nearest first.

        Groups without a number are each alone.
        """
        sides: dict[str, list[str]] = {}
        for group in self.after:
            number = self.numbers.get(group)
            sides.setdefault(group if number is None else f"{np.sign(number)}", []).append(group)
        return [
            sorted(groups, key=lambda group: abs(self.numbers.get(group, 0.0)))
            for groups in sides.values()
        ]


def read_made(folder: Path, volumes: VolumeStore | None) -> tuple[Grid, list[dict[str, Any]]]:
    """Return the grid and the documents of what a command made in a folder.

    Raises
    ------
    ContractError
        If there is none, or it was made in native space.
    """
    documents = []
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text())
        except ValueError as error:
            raise ContractError(f"{path}: not JSON ({error}); make it again") from error
        if document.get("command") in COMMANDS and document.get("space") == "mni":
            documents.append(document | {"path": str(path)})
    if not documents:
        raise ContractError(
            f"{folder}: nothing of manipulate, interpolate or forecast with --space mni in it;"
            " `pipeline regions --space native` brings tables and maps to native space by itself"
        )
    first = nib.Nifti1Image.from_filename(folder / documents[0]["outputs"][0]["file"])
    grid = Grid.model_validate({"shape": first.shape, "affine": first.affine.tolist()})
    if volumes is not None and not volumes.attributes.grid.same_voxels(grid):
        raise ContractError(
            f"{volumes.path}: its grid is not that of {folder}; give the volumes of the same study"
        )
    return grid, documents


def made_cases(
    folder: Path, documents: Sequence[dict[str, Any]], volumes: VolumeStore | None
) -> Iterator[Case]:
    """Yield a case a scan: what was made of it, against its own (scale 0, the first place).

    Raises
    ------
    ContractError
        If a document has no volume to compare with, or one on another grid.
    """
    for document in documents:
        key = COMMANDS[document["command"]]
        outputs = {
            float(output[key]): output["file"]
            for output in document["outputs"]
            if output.get("kind", "mean") in COMPARED
        }
        start = 0.0 if 0.0 in outputs else min(outputs)
        if key == "scale" and start != 0:
            raise ContractError(
                f"{document['path']}: made without scale 0, to which others are compared; run"
                " manipulate with --scale -3:3:7 or another range through 0"
            )
        if len(outputs) < 2:
            raise ContractError(f"{document['path']}: one volume; two are needed to compare")
        loaded = {number: _read(folder / name) for number, name in sorted(outputs.items())}
        sizes = {volume.shape for volume in loaded.values()}
        if len(sizes) > 1:
            raise ContractError(f"{document['path']}: its volumes are on {len(sizes)} grids")
        scan_id = str(document.get("scan_id") or document.get("a"))
        native = None if volumes is None else native_frame(volumes, scan_id)
        before = loaded.pop(start)
        sign = "+" if key == "scale" else ""
        names = {number: f"{key.replace('_', ' ')} {number:{sign}.4g}" for number in loaded}
        yield Case(
            scan_id=scan_id,
            subject_id=subjects_of([scan_id])[0],
            before=before,
            after={names[number]: volume for number, volume in loaded.items()},
            numbers={name: number - start for number, name in names.items()},
            native=native,
        )


Visits = tuple[pd.Series, pd.Series]
"""Earlier and later visit: rows of the manifest."""


def named_visits(
    manifest: pd.DataFrame, scan_ids: Sequence[str], first: str, second: str
) -> Visits:
    """Return the rows of two scans, the earlier first.

    Raises
    ------
    ContractError
        If one is not known, the two are of different people, on one day, or out of order.
    """
    table = manifest[manifest["scan_id"].isin(scan_ids)].set_index("scan_id", drop=False)
    for scan in (first, second):
        if scan not in table.index:
            raise ContractError(f"{scan}: not in both the manifest and the volumes")
    rows: dict[str, pd.Series[Any]] = {str(scan): row for scan, row in table.iterrows()}
    one, other = rows[first], rows[second]
    if one["subject_id"] != other["subject_id"]:
        raise ContractError(
            f"--a {first} and --b {second}: of {one['subject_id']} and {other['subject_id']};"
            " expected two visits of one person"
        )
    gap = float(other["months_from_first"] - one["months_from_first"])
    if not abs(gap) > 0:
        raise ContractError(
            f"--a {first} and --b {second}: on one day, or without months_from_first; expected two"
            " visits"
        )
    if gap < 0:
        raise ContractError(
            f"--a {first} is {-gap:g} months after --b {second}; give the earlier as --a"
        )
    return one, other


def first_and_last_visits(
    manifest: pd.DataFrame, scan_ids: Sequence[str]
) -> tuple[list[Visits], dict[str, str]]:
    """Return each person's first and last visit, and the people left out with the reason.

    Raises
    ------
    ContractError
        If nobody has two visits of different months.
    """
    table = manifest[manifest["scan_id"].isin(scan_ids)]
    pairs, left_out = [], {}
    for subject, visits in table.groupby("subject_id"):
        ordered = visits[visits["months_from_first"].notna()].sort_values("months_from_first")
        if len(ordered) < 2:
            left_out[str(subject)] = "one dated visit, two are needed"
        elif ordered["months_from_first"].iloc[0] == ordered["months_from_first"].iloc[-1]:
            left_out[str(subject)] = "all visits on one day"
        else:
            pairs.append((ordered.iloc[0], ordered.iloc[-1]))
    if not pairs:
        raise ContractError(
            f"regions: nobody has two dated visits ({len(left_out)} people with one); visits are"
            " compared within people"
        )
    return pairs, left_out


def visit_case(volumes: VolumeStore, first: pd.Series, second: pd.Series, group: str) -> Case:
    """Return two visits of one person, laid on each other halfway between them.

    The later one is brought to the earlier one's median intensity. After non-linear registration
    both lie on the template, and the affines are not the whole way there: they stay as they are.
    """
    rows = [volumes.read_row(volumes.row_of[str(visit["scan_id"])]) for visit in (first, second)]
    if registered_by_syn(volumes):
        to_first = to_second = np.eye(4)
    else:
        to_first, to_second, _ = halfway(rows[0].native_to_mni, rows[1].native_to_mni)
    grid = volumes.attributes.grid
    affine = np.asarray(grid.affine, dtype=np.float64)
    before, after = (
        sample(_unit(row.volume), affine, way @ affine, grid.shape)
        for row, way in zip(rows, (to_first, to_second), strict=True)
    )
    both = brain_of(before) & brain_of(after)
    if both.any():
        after = after * np.float32(np.median(before[both]) / np.median(after[both]))
    scan_id = str(first["scan_id"])
    frame = native_frame(volumes, scan_id)
    # Maps go to the first visit's file; volumes are those of the head between the two.
    to_shared = np.linalg.inv(to_first) @ frame.to_mni
    months = float(second["months_from_first"] - first["months_from_first"])
    return Case(
        scan_id=scan_id,
        subject_id=str(first["subject_id"]),
        before=before,
        after={group: after},
        native=NativeFrame(to_mni=to_shared, affine=frame.affine, shape=frame.shape),
        details={"to": str(second["scan_id"]), "months": months},
    )


def registered_by_syn(volumes: VolumeStore) -> bool:
    """Return whether the volumes were registered non-linearly, with no way back that is kept."""
    return bool(volumes.attributes.params.get("preprocess", {}).get("registration") == "syn")


def native_frame(volumes: VolumeStore, scan_id: str) -> NativeFrame:
    """Return the native grid of a scan.

    Raises
    ------
    ContractError
        If the scan is not in the store.
    """
    if scan_id not in volumes.row_of:
        raise ContractError(f"{volumes.path}: {scan_id} is not in it; is it the same study's?")
    row: VolumeRow = volumes.read_row(volumes.row_of[scan_id])
    x, y, z = (int(size) for size in row.native_shape)
    return NativeFrame(to_mni=row.native_to_mni, affine=row.native_affine, shape=(x, y, z))


def _read(path: Path) -> Volume:
    try:
        return np.asarray(nib.Nifti1Image.from_filename(path).dataobj, dtype=np.float32)
    except (OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise ContractError(f"{path}: not readable ({error!s:.80}); make it again") from error


def _unit(volume: NDArray[np.uint8]) -> Volume:
    return np.asarray(volume / np.float32(255), dtype=np.float32)
