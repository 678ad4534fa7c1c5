"""Contrast of a study's images: one, by BIDS suffix, or by a column of a table of scans."""

from collections.abc import Sequence
from typing import get_args

import pandas as pd

from pipeline.labels.scan_records import ScanRecord
from schemas.errors import ContractError
from schemas.manifest import CONTRAST_COLUMN, SELECTION, QuarantineRow
from schemas.params import CohortParams, Contrast, PreprocessParams

NAMES = ("contrast", "suffix")
"""Columns of a table of scans that may hold their contrast."""
SAME = {"unit1": "T1w", "t1": "T1w", "t2": "T2w", "pd": "PDw", "t2star": "T2starw"}
"""Other names, in small letters."""
KNOWN = {name.lower(): name for name in get_args(Contrast)}


def contrast_named(name: str) -> str | None:
    """Return the contrast that a suffix or a cell of a table names; None for another word."""
    word = name.strip().lower()
    return SAME.get(word) or KNOWN.get(word)


def study_contrast(params: CohortParams) -> Contrast:
    """Return the contrast of a study: that of the first BIDS suffix it takes.

    Raises
    ------
    ContractError
        If suffixes of several contrasts are to be taken.
    """
    given = params.bids_filter.get("suffix", params.suffix)
    suffixes = [given] if isinstance(given, str) else list(given or params.suffix)  # type: ignore[arg-type]
    contrasts = {contrast_named(str(suffix)) or "other" for suffix in suffixes}
    if len(contrasts) > 1:
        raise ContractError(
            f"cohort.suffix: {', '.join(map(str, suffixes))} are of several contrasts"
            f" ({', '.join(sorted(contrasts))}); one a study: make a study of each"
        )
    return contrasts.pop()  # type: ignore[return-value]


def of_contrast(
    records: Sequence[ScanRecord], contrast: Contrast
) -> tuple[list[ScanRecord], list[QuarantineRow]]:
    """Return the records of a table that are of this contrast, and rows of the others.

    A column called contrast or suffix counts where every cell names a contrast. Where there is
    none, every scan is taken for one of the study's contrast.
    """
    column = next((name for name in NAMES if _is_contrast(records, name)), None)
    if column is None:
        return list(records), []
    kept, left = [], []
    for record in records:
        found = contrast_named(str(record.labels.pop(column)))
        if found == contrast:
            kept.append(record)
        else:
            left.append(_left_out(record, f"{column} is {found}, cohort.suffix takes {contrast}"))
    return kept, left


def with_contrast(params: PreprocessParams, manifest: pd.DataFrame) -> PreprocessParams:
    """Return the parameters with the contrast of the manifest's scans.

    Raises
    ------
    ContractError
        If its scans are of several contrasts, or of another one than the parameters name.
    """
    found = _contrasts_in(manifest)
    if len(found) > 1:
        raise ContractError(
            f"manifest: contrasts {', '.join(found)}; one a study: make a study of each"
        )
    if params.contrast is not None and found and found[0] != params.contrast:
        raise ContractError(
            f"preprocess.contrast is {params.contrast}, the manifest's scans are {found[0]}; leave"
            " it out, or set cohort.suffix and run `pipeline cohort` again"
        )
    if params.contrast is not None or not found:
        return params
    return params.model_copy(update={"contrast": found[0]})


def _contrasts_in(manifest: pd.DataFrame) -> list[str]:
    """Return the contrasts that a manifest names; none where its column holds other words.

    Beside scans of a named contrast, one without a name is a T1w.
    """
    if CONTRAST_COLUMN not in manifest:
        return []
    cells = manifest[CONTRAST_COLUMN]
    named = [contrast_named(str(cell)) for cell in cells.dropna()]
    found = {name for name in named if name is not None}
    if None in named:
        return []
    return sorted(found | {"T1w"} if found and cells.isna().any() else found)


def _is_contrast(records: Sequence[ScanRecord], column: str) -> bool:
    cells = [record.labels.get(column) for record in records]
    return bool(cells) and all(isinstance(c, str) and contrast_named(c) for c in cells)


def _left_out(record: ScanRecord, reason: str) -> QuarantineRow:
    return {
        "scan_id": record.scan_id,
        "path": str(record.path),
        "stage": SELECTION,
        "reason": reason,
    }
