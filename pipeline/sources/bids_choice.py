"""Choice among the images of a BIDS session: which is taken, and which is tried next."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.labels.preferred_words import preference
from pipeline.labels.scan_records import entities, natural_key
from schemas.errors import ParamsError

LONG_NAMES = {
    "subject": "sub", "session": "ses", "sample": "sample", "task": "task", "acquisition": "acq",
    "ceagent": "ce", "reconstruction": "rec", "direction": "dir", "run": "run", "echo": "echo",
    "part": "part", "inv": "inv", "inversion": "inv", "space": "space", "resolution": "res",
    "description": "desc", "desc": "desc", "modality": "mod", "flip": "flip", "mt": "mt",
}  # fmt: skip
"""Names of entities in filter files of fMRIPrep and PyBIDS → in file names."""
NOT_A_HEAD = re.compile(r"[ctl]?spine|neck|cervical|lumbar|thora|brachial|knee|orbit|pituitary|iac")
THICK = re.compile(
    r"tse|fse|tfse|2d|ax|axial|tra|cor|coronal|sag2d|thick|lowres|loc|scout|flair|se"
)
SHARP = re.compile(
    r"3d|\w*mp2?rage\w*|mpr\w*|\w*spgr\w*|bravo\w*|tfl\w*|tfe\w*|hi(?:gh)?res\w*|iso\w*"
)
AGENT = re.compile(r"gd|gad\w*|post\w*|ce|contrast|km")
COMBINED = ("rms", "me", "mean", "combined", "optcom")
"""Values of `rec` for images that combine several echoes."""
ANY, NONE = ("*", "Query.ANY", "Query.REQUIRED"), ("Query.NONE",)


@dataclass(frozen=True, slots=True)
class ImageChoice:
    """Rules by which one image of a BIDS session is chosen."""

    suffixes: tuple[str, ...] = ("T1w",)
    """Suffixes that are taken: of a session, the first that it has."""
    prefer: tuple[str, ...] = ()
    """Words in names of images that go before all default rules."""
    wanted: Mapping[str, Any] = field(default_factory=dict)
    """Entity → the value or values that an image must have; None if it must not have it."""

    def takes(self, path: Path) -> bool:
        """Return whether a file is a NIfTI magnitude image with a suffix that is taken."""
        nifti = path.name.lower().endswith((".nii", ".nii.gz"))
        return nifti and suffix_of(path) in self.suffixes and not self.is_part(path)

    def is_part(self, path: Path) -> bool:
        """Return whether a file is the phase, real or imaginary part of an image."""
        return entities(path.name).get("part", "mag") in {"phase", "real", "imag"}

    def notes(self, path: Path) -> list[str]:
        """Return the oddities of a T1w by its name."""
        words = _words(path)
        notes = []
        suffix = suffix_of(path)
        if self.suffixes.index(suffix):
            notes.append(f"{suffix}, where other scans are {self.suffixes[0]}")
        if "ce" in entities(path.name) or _has(AGENT, words):
            notes.append("scanned with a contrast agent by its name")
        if _has(NOT_A_HEAD, words):
            notes.append("no head by its name")
        return notes

    def fits(self, path: Path) -> bool:
        """Return whether a file has the wanted entities."""
        parts = entities(path.name)
        return all(_fits(parts.get(name), value) for name, value in self.wanted.items())

    def rank(self, path: Path) -> tuple[Any, ...]:
        """Return the sort key of a file within its session."""
        parts = entities(path.name)
        words = _words(path)
        extra = [f"{name}-{value}" for name, value in parts.items() if name not in {"sub", "ses"}]
        return (
            self.suffixes.index(suffix_of(path)),
            preference(path.name, self.prefer),
            _has(NOT_A_HEAD, words),
            "ce" in parts or _has(AGENT, words),
            "inv" in parts,
            "echo" in parts and parts.get("rec", "").lower() not in COMBINED,
            _has(THICK, words),
            not _has(SHARP, words) and "acq" in parts,
            "space" in parts,
            len(extra),
            natural_key("_".join(extra)),
            str(path),
        )


def read_choice(
    suffixes: Sequence[str], prefer: Sequence[str], bids_filter: Mapping[str, Any]
) -> ImageChoice:
    """Return the rules of choice from the parameters.

    Raises
    ------
    ParamsError
        If the filter names an unknown entity, or a folder other than anat.
    """
    wanted: dict[str, Any] = {}
    suffixes = tuple(suffixes)
    for name, value in bids_filter.items():
        if name == "suffix":
            suffixes = tuple(map(str, value if isinstance(value, list) else [value]))
        elif name == "datatype" and value == "anat":
            continue
        elif LONG_NAMES.get(name, name) in LONG_NAMES.values():
            wanted[LONG_NAMES.get(name, name)] = value
        elif name not in {"extension", "scope"}:
            known = ", ".join(sorted(LONG_NAMES))
            raise ParamsError(
                f"cohort.bids_filter: {name}={value!r}; expected entities of a T1w ({known}) or"
                " suffix"
            )
    return ImageChoice(suffixes, tuple(prefer), wanted)


def _words(path: Path) -> list[str]:
    parts = entities(path.name)
    return re.split(r"[^a-z0-9]+", f"{parts.get('acq', '')} {parts.get('rec', '')}".lower())


def read_filter_file(path: Path) -> dict[str, Any]:
    """Return the entry for T1w images of fMRIPrep's `--bids-filter-file`.

    Raises
    ------
    ParamsError
        If it cannot be read, or has no entry `t1w`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no valid JSON ({error})"
        raise ParamsError(f"{path}: cannot be read as a BIDS filter: {reason}") from error
    entries = {k.lower(): v for k, v in content.items()} if isinstance(content, dict) else {}
    wanted = entries.get("t1w")
    if not isinstance(wanted, dict):
        present = ", ".join(entries) or type(content).__name__
        raise ParamsError(
            f'{path}: expected {{"t1w": {{"acquisition": "mprage"}}}}, found {present}'
        )
    return wanted


def suffix_of(path: Path) -> str:
    """Return the BIDS suffix of a file: `T1w` of `sub-1_T1w.nii.gz`."""
    return path.name.split(".", 1)[0].rsplit("_", 1)[-1]


def _has(pattern: re.Pattern[str], words: Sequence[str]) -> bool:
    return any(pattern.fullmatch(word) for word in words)


def _fits(have: str | None, wanted: object) -> bool:
    if wanted is None or wanted in NONE:
        return have is None
    if wanted in ANY:
        return have is not None
    many = wanted if isinstance(wanted, list) else [wanted]
    return have is not None and any(_equal(have, str(value)) for value in many)


def _equal(have: str, wanted: str) -> bool:
    """Return whether labels are equal; numbers by value, with or without the entity's prefix."""
    wanted = wanted.rsplit("-", 1)[-1]
    if have.isdigit() and wanted.isdigit():
        return int(have) == int(wanted)
    return have == wanted
