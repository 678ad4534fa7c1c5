"""Tables that travel between stages: the manifest (one row a scan) and the quarantine list."""

from typing import Literal, TypedDict

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")

MANIFEST_COLUMNS: dict[str, str] = {
    "scan_id": "unique name, sub-<subject>[_ses-<session>][_acq-…][_run-…]",
    "subject_id": "sub-<subject>; every scan of a subject is in one split",
    "session_id": "ses-<session>, or empty",
    "path": "image file, absolute or relative to the manifest",
    "source_digest": "sha256 of the image file",
    "age_years": "age at this scan (years)",
    "sex": "F or M; a code that tells neither stays as it is",
    "diagnosis": "as given by the dataset",
    "months_from_first": "months since the subject's first scan",
    "split": "train, val or test",
}
"""Required columns of manifest.csv, in order; further columns are labels of the user's."""

NUMERIC_COLUMNS = ("age_years", "months_from_first")

CONTRAST_COLUMN = "contrast"
"""Column of the contrast of scans that are no T1w, one a study."""

SITE_COLUMNS = ("site", "source", "dataset")
"""Columns that name a scan's site or scanner, the first that is there."""

QUARANTINE_COLUMNS = ("scan_id", "path", "stage", "reason")
"""Columns of quarantine.csv: which scan, which file, where it stopped, why."""


class QuarantineRow(TypedDict):
    """One row of quarantine.csv."""

    scan_id: str
    path: str
    stage: str
    reason: str


SELECTION = "selection"
"""Stage of quarantine rows for images that are no fault: other series, results, second choices."""

CANDIDATE_COLUMNS = ("scan_id", "path", "note")
"""Columns of candidates.csv: the images of a scan in the order in which they are tried, the first
as in the manifest, and what is odd about each. Scans with one image and nothing odd have no row."""

OVERRIDE_COLUMNS = ("scan_id", "status", "reason")
"""Columns of qc_overrides.csv: what a person decided about a scan, and why."""

OVERRIDE_STATUSES = ("pass", "warn", "fail")
"""A scan set to `fail` is quarantined; the others stay."""


VOLUMES = (
    "brain_mm3",
    "gray_matter_mm3",
    "white_matter_mm3",
    "ventricle_mm3",
    "sulcal_csf_mm3",
    "medial_temporal_mm3",
    "frontal_gray_mm3",
    "lesion_mm3",
)
"""True volumes of a scan; `lesion_mm3` is the reach of dark white matter at full strength."""
