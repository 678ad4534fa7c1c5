"""Read DICOM headers: group the files of a session into series, each with its geometry."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import ContractError

TAGS = (
    "SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber",
    "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "Modality",
    "ImageType", "ComplexImageComponent", "AcquisitionContrast", "ContrastBolusAgent",
    "ScanningSequence", "EchoTime", "RepetitionTime", "FlipAngle", "InversionTime", "Rows",
    "Columns", "PixelSpacing", "SliceThickness", "ImageOrientationPatient",
    "ImagePositionPatient", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
"""Elements that are read of a header."""
GE_COMPONENT = 0x0043102F
"""GE's private element: magnitude 0, phase 1, real 2, imaginary 3."""
GE_COMPONENTS = {"1": "PHASE", "2": "REAL", "3": "IMAGINARY"}
SAME_TURN = 0.02
"""Slices are parallel if their direction cosines differ by less."""
SAME_PLACE = 0.1
"""Slices closer than this share of the usual distance are at one position."""
EVEN = 0.1
"""Tolerance of slice distances, as a share of the usual one."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Positions of the slices of a series along their normal."""

    count: int
    """Number of different positions."""
    step: float
    """Usual distance (mm); 0 for a single position."""
    missing: int
    """Number of missing positions, from gaps in the distances."""
    doubled: int
    """Number of images beyond the first at their position."""
    volumes: int
    """Number of images at each position if it is the same at all; else 1."""
    uneven: bool
    """Whether a distance is no multiple of the usual one."""


@dataclass
class Series:
    """Images of one DICOM series that are of one kind and parallel."""

    number: str
    description: str
    words: str
    """Description, protocol and sequence name, in small letters."""
    kind: frozenset[str]
    """ImageType with component and contrast of multi-frame images, in capitals."""
    modality: str
    agent: str
    """Contrast agent, as it is written; empty for none."""
    physics: dict[str, float]
    """te, tr, ti (ms) and flip (degrees), where they are given."""
    sequence: frozenset[str]
    """ScanningSequence: GR, SE, IR, EP."""
    frame: tuple[int, int]
    """Rows and columns."""
    spacing: tuple[float, float]
    """Distances of rows and of columns (mm)."""
    thickness: float
    """Slice thickness (mm); 0 where it is not given."""
    orientation: tuple[float, ...]
    """Cosines of a row and a column; empty where they are not given."""
    echo: int = 0
    """Number (from 1) among several echoes under one SeriesInstanceUID; 0 for a single echo."""
    files: list[Path] = field(default_factory=list)
    positions: list[float] = field(default_factory=list)
    """Position of every slice along the normal (mm)."""

    @property
    def name(self) -> str:
        """Number and description, as a person finds it on the scanner."""
        echo = f", echo {self.echo}" if self.echo else ""
        return f"{self.number} {self.description or 'without a description'}{echo}".strip()

    @property
    def slices(self) -> Slices:
        """Positions of the slices, summarised."""
        return slices_of(self.positions)

    @property
    def edge(self) -> float:
        """Largest edge of a voxel (mm); of thick slices that overlap, their thickness."""
        return max(*self.spacing, self.slices.step, self.thickness)


@dataclass(frozen=True, slots=True)
class Headers:
    """Series and ids in the files of one session."""

    series: list[Series]
    people: dict[str, Path]
    """PatientID → a file of it; for comparison alone, never to be shown."""
    studies: dict[str, Path]
    """StudyInstanceUID → a file of it."""
    unreadable: list[Path]
    """Files that are not DICOM, or have a damaged header."""


def read_headers(files: Iterable[Path]) -> Headers:
    """Return the series of a session's files, in the order of their numbers.

    An image that exists twice (one SOPInstanceUID) counts once.

    Raises
    ------
    ContractError
        If pydicom is not installed.
    """
    headers = Headers([], {}, {}, [])
    seen: set[str] = set()
    groups: dict[str, list[Series]] = defaultdict(list)
    for path in files:
        dataset = _read(path)
        if dataset is None:
            headers.unreadable.append(path)
            continue
        uid = _text(dataset, "SOPInstanceUID")
        if uid and uid in seen:
            continue
        seen.add(uid)
        for ids, name in ((headers.people, "PatientID"), (headers.studies, "StudyInstanceUID")):
            if text := _text(dataset, name):
                ids.setdefault(text, path)
        series, positions = _series(dataset)
        same_uid = groups[_text(dataset, "SeriesInstanceUID")]
        group = next((other for other in same_uid if _one_stack(other, series)), None)
        if group is None:
            group = series
            same_uid.append(series)
        group.files.append(path)
        group.positions += positions
    for same_uid in groups.values():
        _number_echoes(same_uid)
        headers.series.extend(same_uid)
    headers.series.sort(key=_order)
    return headers


def _number_echoes(same_uid: list[Series]) -> None:
    """Give echo numbers to series that differ in echo time alone."""
    for series in same_uid:
        same = [o for o in same_uid if (o.kind, o.frame) == (series.kind, series.frame)]
        times = sorted({other.physics.get("te", 0.0) for other in same})
        if len(times) > 1:
            series.echo = 1 + times.index(series.physics.get("te", 0.0))


def slices_of(positions: Sequence[float]) -> Slices:
    """Return the summary of slice positions along the normal (mm)."""
    places = np.sort(np.asarray(positions, dtype=np.float64))
    gaps = np.diff(places)
    if not (gaps > 1e-3).any():
        return Slices(min(len(places), 1), 0.0, 0, max(len(places) - 1, 0), 1, uneven=False)
    step = float(np.median(gaps[gaps > 1e-3]))
    apart = gaps > SAME_PLACE * step
    steps = gaps[apart] / step
    each = Counter(np.concatenate([[0], np.cumsum(apart)]).tolist()).values()
    return Slices(
        count=len(each),
        step=step,
        missing=int((np.rint(steps) - 1).clip(min=0).sum()),
        doubled=len(places) - len(each),
        volumes=min(each) if len(set(each)) == 1 else 1,
        uneven=bool((np.abs(steps - np.rint(steps)) > EVEN).any() or (steps < 1 - EVEN).any()),
    )


def _read(path: Path) -> Any:
    """Return the header of a file; None if it has none that can be read."""
    try:
        import pydicom
        from pydicom import config
    except ImportError as error:
        raise ContractError(
            "DICOM needs pydicom, which is not installed; run pip install 'ldae-pipeline[dicom]'"
        ) from error
    # Scanners write values that the standard forbids; each is checked where it is used.
    config.settings.reading_validation_mode = config.IGNORE
    tags: Any = [*TAGS, GE_COMPONENT]
    try:
        dataset = pydicom.dcmread(
            path,
            stop_before_pixels=True,
            force=True,
            specific_tags=tags,
        )
        return dataset if "SeriesInstanceUID" in dataset or "Rows" in dataset else None
    except Exception:  # noqa: BLE001 (whatever a parser trips over is this file's fault)
        return None


def _text(dataset: Any, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else " ".join(str(value).split())


def _words(dataset: Any, name: str) -> list[str]:
    value = dataset.get(name)
    many = [] if value is None else [value] if isinstance(value, str) else list(value)
    return [str(word).strip().upper() for word in many if str(word).strip()]


def _numbers(dataset: Any, name: str) -> tuple[float, ...]:
    """Return the numbers of an element; () if one of them is not a number."""
    value = dataset.get(name) if dataset is not None else None
    if value is None or value == "":
        return ()
    try:
        many = [value] if isinstance(value, (str, int, float)) else list(value)
        return tuple(float(number) for number in many)
    except (TypeError, ValueError):
        return ()


def _number(dataset: Any, name: str) -> float:
    numbers = _numbers(dataset, name)
    return numbers[0] if numbers and math.isfinite(numbers[0]) else 0.0


def _groups(dataset: Any) -> list[Any]:
    """Return the functional groups of each frame, those of all frames first; [] for one slice."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    return [*shared[:1], *(dataset.get("PerFrameFunctionalGroupsSequence") or [])]


def _inside(groups: Sequence[Any], sequence: str) -> list[Any]:
    """Return the items of one functional group, from the frames that have it."""
    return [group[sequence][0] for group in groups if group.get(sequence)]


def _series(dataset: Any) -> tuple[Series, list[float]]:
    """Return a file's series, still without files, and the positions of its slices."""
    groups = _groups(dataset)
    measures = next(iter(_inside(groups, "PixelMeasuresSequence")), dataset)
    turned = next(iter(_inside(groups, "PlaneOrientationSequence")), dataset)
    places = _inside(groups, "PlanePositionSequence") or [dataset]
    orientation = _numbers(turned, "ImageOrientationPatient")
    orientation = orientation if len(orientation) == 6 else ()
    corners = [_numbers(place, "ImagePositionPatient") for place in places]
    positions = []
    if orientation and all(len(corner) == 3 for corner in corners):
        normal = np.cross(orientation[:3], orientation[3:])
        positions = [float(np.dot(corner, normal)) for corner in corners]
    spacing = _numbers(measures, "PixelSpacing")
    names = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
    description = _text(dataset, "SeriesDescription") or _text(dataset, "ProtocolName")
    return Series(
        number=_text(dataset, "SeriesNumber"),
        description=description,
        words=" ".join(filter(None, (_text(dataset, name) for name in names))).lower(),
        kind=frozenset(_kind(dataset)),
        modality=_text(dataset, "Modality").upper(),
        agent=_text(dataset, "ContrastBolusAgent"),
        physics=_physics(dataset, groups),
        sequence=frozenset(_words(dataset, "ScanningSequence")),
        frame=(int(_number(dataset, "Rows")), int(_number(dataset, "Columns"))),
        spacing=(spacing[0], spacing[1]) if len(spacing) == 2 else (0.0, 0.0),
        thickness=_number(measures, "SliceThickness"),
        orientation=orientation,
    ), positions


def _kind(dataset: Any) -> list[str]:
    component = GE_COMPONENTS.get(_text(dataset, GE_COMPONENT))  # type: ignore[arg-type]
    more = [*_words(dataset, "ComplexImageComponent"), *_words(dataset, "AcquisitionContrast")]
    return [*_words(dataset, "ImageType"), *more, *([component] if component else [])]


def _physics(dataset: Any, groups: Sequence[Any]) -> dict[str, float]:
    """Return times and the flip angle, of a multi-frame image from its functional groups."""
    timing = next(iter(_inside(groups, "MRTimingAndRelatedParametersSequence")), dataset)
    echo = next(iter(_inside(groups, "MREchoSequence")), None)
    inversion = next(iter(_inside(groups, "MRModifierSequence")), None)
    values = {
        "te": _number(dataset, "EchoTime") or _number(echo, "EffectiveEchoTime"),
        "tr": _number(timing, "RepetitionTime"),
        "ti": _number(dataset, "InversionTime") or _number(inversion, "InversionTimes"),
        "flip": _number(timing, "FlipAngle"),
    }
    return {name: value for name, value in values.items() if value > 0}


def _one_stack(one: Series, other: Series) -> bool:
    """Return whether two images of a series belong to one volume."""
    return (
        one.kind == other.kind
        and one.frame == other.frame
        and all(one.physics.get(name) == other.physics.get(name) for name in ("te", "ti"))
        and len(one.orientation) == len(other.orientation)
        and all(
            abs(a - b) < SAME_TURN for a, b in zip(one.orientation, other.orientation, strict=True)
        )
    )


def _order(series: Series) -> tuple[float, str, int]:
    number = series.number
    return (float(number) if number.isdigit() else math.inf, series.description, series.echo)
