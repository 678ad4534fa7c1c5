"""Parse label cells: ages, sexes, classes, and words for `not known`."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence

log = logging.getLogger(__name__)

UNKNOWN = frozenset({"NA", "na", "None", "none", ".", "-", "?", "unknown", "Unknown", "<NA>"})
"""Words for `not known` in a column of numbers."""
NOT_TOLD = {name.lower() for name in UNKNOWN} | {"n.a.", "nan", "missing", "not reported", "n/a"}
"""Words for `not known` among ages and sexes, in small letters."""
SEXES = {
    "f": "F", "female": "F", "w": "F", "woman": "F", "women": "F", "girl": "F", "femme": "F",
    "weiblich": "F", "mujer": "F", "femenino": "F", "donna": "F", "femmina": "F",
    "女": "F", "女性": "F", "男": "M", "男性": "M",
    "m": "M", "male": "M", "man": "M", "men": "M", "boy": "M", "homme": "M",
    "männlich": "M", "hombre": "M", "masculino": "M", "uomo": "M", "maschio": "M",
}  # fmt: skip
AGE = re.compile(r"[<>]?=?\s*(\d+(?:[.,]\d+)?)\s*(\+|years?|yrs?|[YMWD])?", re.IGNORECASE)
YEARS = {"m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
"""Years of one unit, as DICOM writes ages: `034Y`, `018M`, `003W`, `010D`."""
BOUND = re.compile(r"[<>]|\+")
"""Signs of an age that is a bound, which hides how old a very old person is."""
DATE = re.compile(r"\D*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\D*|(19|20)\d{6}")
"""A date among ages may be a birth date: it is neither shown nor kept."""
OLDEST = 120.0
"""Larger ages (years), and negative ones, are codes for `not known` (999, -4)."""
MOST_CLASSES = 20
"""A column with more different texts than this does not hold classes."""


def sex_of(cell: object) -> str | None:
    """Return F or M, or None for anything else."""
    return SEXES.get(str(cell).strip().lower())


def sexes_of(cells: Iterable[object], where: str) -> list[str | None]:
    """Return F, M, or None for `not known`; other codes stay as they are, with a warning."""
    texts = [_text(cell) for cell in cells]
    sexes = [None if t is None or t.lower() in NOT_TOLD else sex_of(t) or t for t in texts]
    codes = Counter(sex for sex in sexes if sex not in {"F", "M", None})
    if codes:
        log.warning(
            "%s: sex holds %s, neither F nor M; kept as it is, and what needs F and M leaves these"
            " scans out. Say what codes mean in the JSON file beside the table: {\"sex\":"
            " {\"Levels\": {\"1\": \"male\", \"2\": \"female\"}}}",
            where,
            ", ".join(f"{code!r} ({count} times)" for code, count in sorted(codes.items())),
        )  # fmt: skip
    return sexes


def ages_of(
    cells: Iterable[object], names: Sequence[str], where: str = "ages"
) -> tuple[list[float | None], list[str | None]]:
    """Return ages in years (None where a cell holds none) and the text of odd cells.

    `89+` and `>89`, which hide the ages of very old people, become 89. Text that is no age, such
    as a range, and impossible ages become missing. The log names the cells of each kind.
    """
    ages: list[float | None] = []
    texts: list[str | None] = []
    odd_cells: dict[str, list[str]] = {"unread": [], "impossible": [], "bound": []}
    for name, cell in zip(names, cells, strict=True):
        text = _text(cell) or ""
        match = AGE.fullmatch(text)
        number = float(match[1].replace(",", ".")) if match else None
        age = number * YEARS.get((match[2] or "").lower(), 1) if match and number else number
        kind = _kind(text, age)
        if kind:
            odd_cells[kind].append(
                f"{name} ({'a date, not kept' if DATE.fullmatch(text) else text})"
            )
        kept = kind in {"unread", "bound"} and not DATE.fullmatch(text)
        texts.append(text if kept else None)
        ages.append(None if kind in {"unread", "impossible"} else age)
    for kind, words in {
        "unread": "no age in years, taken as unknown, the text kept in age_text",
        "impossible": "ages taken as unknown",
        "bound": "a bound is taken as the age, the text kept in age_text",
    }.items():
        if cells_of_kind := odd_cells[kind]:
            more = f" and {len(cells_of_kind) - 5} more" if len(cells_of_kind) > 5 else ""
            log.warning("%s: %s: %s%s", where, words, ", ".join(cells_of_kind[:5]), more)
    return ages, texts


def _kind(text: str, age: float | None) -> str | None:
    """Return the kind of an odd age (`unread`, `impossible`, `bound`), or None."""
    if text == "" or text.lower() in NOT_TOLD:
        return None
    if (age is not None and age > OLDEST) or re.fullmatch(r"-\d+([.,]\d+)?", text):
        return "impossible"
    if age is None:
        return "unread"
    return "bound" if BOUND.search(text) else None


def classes_of(cells: Iterable[object], name: str, where: str) -> list[object]:
    """Return cells stripped of blanks, and those that differ in case alone spelt alike.

    The commonest spelling is taken. In a column of more than 20 different texts, which holds no
    classes, blanks go and case stays.
    """
    given = list(cells)
    texts = [" ".join(cell.split()) if isinstance(cell, str) else cell for cell in given]
    counts = Counter(text for text in texts if isinstance(text, str))
    chosen: dict[str, str] = {}
    for text in sorted(counts, key=lambda t: (-counts[t], t)):
        chosen.setdefault(text.casefold(), text)
    if len(chosen) > MOST_CLASSES:
        return texts
    unified = [chosen[text.casefold()] if isinstance(text, str) else text for text in texts]
    changed = Counter((old, new) for old, new in zip(given, unified, strict=True) if old != new)
    changed = Counter({pair: n for pair, n in changed.items() if isinstance(pair[0], str)})
    if changed:
        # Values of a diagnosis alone are shown: other columns may hold something personal.
        shown = ", ".join(sorted({f"{old!r} as {new!r}" for old, new in changed}))
        what = shown if name == "diagnosis" else "blanks and case made alike"
        log.warning("%s: %s: %s (%d cells)", where, name, what, changed.total())
    return unified


def _text(cell: object) -> str | None:
    """Return a cell's text without blanks around; None where there is none (None or NaN)."""
    return None if cell is None or cell != cell else str(cell).strip() or None
