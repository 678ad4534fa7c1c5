"""What people write into label cells: ages, sexes, and words for `not known`."""

import logging
import re
from collections.abc import Iterable, Sequence

log = logging.getLogger(__name__)

UNKNOWN = frozenset({"NA", "na", "None", "none", ".", "-", "?", "unknown", "Unknown", "<NA>"})
"""Words for `not known` in a column of numbers."""
SEXES = {"f": "F", "female": "F", "w": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}
AGE = re.compile(r"[<>]?=?\s*(\d+(?:\.\d+)?)\s*(\+|years?|yrs?|[YMWD])?", re.IGNORECASE)
YEARS = {"m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
"""Years of one unit, as DICOM writes ages: `034Y`, `018M`, `003W`, `010D`."""
OLDEST = 120.0
"""Larger ages (years), and negative ones, are codes for `not known` (999, -4)."""


def sex_of(cell: object) -> str | None:
    """Return F or M, or None for anything else."""
    return SEXES.get(str(cell).strip().lower())


def ages_of(cells: Iterable[object], names: Sequence[str]) -> list[float | str | None]:
    """Return ages in years where a cell can be read as one; other text stays as it is.

    `89+` and `>89`, which hide the ages of very old people, become 89. Ages that nobody has
    become missing, and the log names them.
    """
    ages: list[float | str | None] = []
    impossible = []
    for name, cell in zip(names, cells, strict=True):
        # An absent cell is None or NaN.
        text = "" if cell is None or cell != cell else str(cell).strip()
        match = AGE.fullmatch(text)
        age = float(match[1]) * YEARS.get((match[2] or "").lower(), 1) if match else None
        if (age is not None and age > OLDEST) or re.fullmatch(r"-\d+(\.\d+)?", text):
            impossible.append(f"{name} ({text})")
            ages.append(None)
        else:
            ages.append(text or None if age is None else age)
    if impossible:
        more = f" and {len(impossible) - 5} more" if len(impossible) > 5 else ""
        log.warning("ages taken as unknown: %s%s", ", ".join(impossible[:5]), more)
    return ages
