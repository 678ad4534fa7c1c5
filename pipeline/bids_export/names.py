"""Names of a scan's files in BIDS-Derivatives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.labels.scan_records import bids_label, entities, prefixed
from schemas.errors import ContractError
from schemas.manifest import CONTRAST_COLUMN

SPACE = "MNI152NLin2009aSym"
"""The template's name in BIDS: left and right of nilearn's ICBM152 2009a are equal."""
ENTITIES = ("acq", "ce", "rec", "run", "echo", "part")
"""Entities that BIDS allows in names of T1w, in its order."""
SUFFIXES = ("T1w", "T2w", "FLAIR", "PDw", "T2starw")
"""Contrasts that have a suffix of their own."""
OTHER = "other"
"""Contrast of a manifest whose images have another suffix: which, it does not say."""
INDICES = ("run", "echo")
PARTS = ("mag", "phase", "real", "imag")


@dataclass(frozen=True, slots=True)
class ScanNames:
    """The names of one scan."""

    scan_id: str
    participant: str
    """sub-<label>."""
    session: str
    """ses-<label>, or empty."""
    stem: str
    """Start of every file name, sub-<label>[_ses-<label>][_acq-…]."""
    suffix: str = "T1w"
    """BIDS suffix of the images: the study's contrast."""

    @property
    def folder(self) -> Path:
        """Return the folder of the images, relative to the dataset."""
        return Path(self.participant, self.session, "anat")

    def file(self, ending: str) -> Path:
        """Return the path of a file relative to the dataset: `_…_T1w.nii.gz` is its ending."""
        return self.folder / f"{self.stem}_{ending}"

    @property
    def preprocessed(self) -> Path:
        """Return the path of the preprocessed image."""
        return self.file(f"space-{SPACE}_desc-preproc_{self.suffix}.nii.gz")

    @property
    def sidecar(self) -> Path:
        """Return the path of the JSON that is written last: with it, a scan's files are whole."""
        return self.file(f"space-{SPACE}_desc-preproc_{self.suffix}.json")


def names_of(scan_id: str, subject_id: str, session_id: str, suffix: str = "T1w") -> ScanNames:
    """Return the names of a scan; what BIDS has no entity for becomes part of `acq`."""
    participant = prefixed("sub", subject_id)
    session = prefixed("ses", session_id) if session_id else ""
    start = "_".join(filter(None, (subject_id, session_id)))
    rest = scan_id.removeprefix(start) if start else scan_id
    kept: dict[str, str] = {}
    other = ""
    for part in filter(None, rest.split("_")):
        found = entities(part)
        name, value = next(iter(found.items()), ("", ""))
        if name in ENTITIES and _allowed(name, bids_label(value)):
            kept[name] = bids_label(value)
        else:
            other += bids_label(part)
    if other:
        kept["acq"] = kept.get("acq", "") + other
    labels = [f"{name}-{kept[name]}" for name in ENTITIES if name in kept]
    stem = "_".join(filter(None, (participant, session, *labels)))
    return ScanNames(scan_id, participant, session, stem, suffix)


def _allowed(name: str, value: str) -> bool:
    if name in INDICES:
        return value.isdigit()
    return value in PARTS if name == "part" else bool(value)


def all_names(scans: Sequence[Mapping[str, object]]) -> dict[str, ScanNames]:
    """Return scan_id → names of the rows of a manifest.

    Raises
    ------
    ContractError
        If two scans, or two subjects, would have the same name, or the contrast has no suffix.
    """
    names: dict[str, ScanNames] = {}
    owner: dict[str, str] = {}
    for row in scans:
        scan_id, subject = str(row["scan_id"]), str(row["subject_id"])
        contrast = row.get(CONTRAST_COLUMN)
        if contrast == OTHER:
            raise ContractError(
                f"{scan_id}: its contrast has no suffix here; {', '.join(SUFFIXES)} can be exported"
            )
        suffix = str(contrast) if contrast in SUFFIXES else "T1w"
        found = names_of(scan_id, subject, str(row["session_id"] or ""), suffix)
        for label, whose in ((found.stem, scan_id), (found.participant, subject)):
            first = owner.setdefault(label, whose)
            if first != whose:
                raise ContractError(
                    f"{first} and {whose} would both be called {label} in BIDS; rename one (only"
                    " letters and digits count)"
                )
        names[scan_id] = found
    return names
