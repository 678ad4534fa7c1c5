"""Names of people and visits: turned into unique BIDS labels, and matched to one another."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.labels.scan_records import prefixed
from schemas.errors import ContractError

WHOLE = re.compile(r"(\d+)\.0+")
DECIMAL = re.compile(r"\d+\.\d+")


def plain(name: str) -> str:
    """Return a column's name as small letters and digits alone: `Session ID` → `sessionid`."""
    return re.sub(r"[\W_]", "", name.lower())


def find_column(have: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the column called by the first of `names`, spelt alike or in another way."""
    columns = list(have)
    spelt = {plain(name): name for name in reversed(columns)}
    for name in names:
        if name in columns or plain(name) in spelt:
            return name if name in columns else spelt[plain(name)]
    return None


def whole_numbers(cells: Iterable[object]) -> list[object]:
    """Return cells with `11.0` as `11`, if every number with a point is whole.

    Spreadsheets and data frames write whole numbers so where a column has a gap.
    """
    given = list(cells)
    texts = [cell.strip() for cell in given if isinstance(cell, str)]
    if any(DECIMAL.fullmatch(t) and not WHOLE.fullmatch(t) for t in texts):
        return given
    return [
        match[1] if isinstance(cell, str) and (match := WHOLE.fullmatch(cell.strip())) else cell
        for cell in given
    ]


class BidsLabels:
    """BIDS labels of names; two different names never get the same label."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self._name_of: dict[tuple[str, str], str] = {}

    def __call__(self, kind: str, name: str, *, within: str = "") -> str:
        """Return `sub-<label>` or `ses-<label>` of a name; "" if no letter or digit is left.

        Sessions are compared `within` their subject.

        Raises
        ------
        ContractError
            If another name has the same label.
        """
        written = unicodedata.normalize("NFC", name).strip().removeprefix(f"{kind}-")
        label = prefixed(kind, written)
        first = self._name_of.setdefault((within, label), written)
        if label and first != written:
            of_subject = f" of {within}" if within else ""
            raise ContractError(
                f"{self._where}: {first!r} and {written!r}{of_subject} would both be called"
                f" {label}; rename one (only letters and digits count)"
            )
        return label


def without_zeros(name: str) -> str:
    """Return a name in small letters, numbers without leading zeros: `sub-0050772` → `50772`."""
    text = re.sub(r"^((sub|ses)-?)+", "", name.lower())
    return re.sub(r"0*(\d+)", r"\1", text)


def match_names(
    wanted: Iterable[str], offered: Iterable[str], keys: Iterable[Callable[[str], object]]
) -> tuple[dict[str, str], list[str]]:
    """Return wanted name → offered name, and the names that stay ambiguous.

    Equal names match. Of the others, two match by a key if no other wanted or offered name has the
    same; the keys are tried in turn, and None matches nothing.
    """
    right = set(offered)
    matched = {name: name for name in wanted if name in right}
    left = {name for name in wanted if name not in matched}
    right -= set(matched)
    doubtful: list[str] = []
    for key in keys:
        groups: dict[object, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for side, names in enumerate((left, right)):
            for name in sorted(names):
                groups[key(name)][side].append(name)
        for value, (wanted_names, offered_names) in groups.items():
            if value is None or not wanted_names or not offered_names:
                continue
            if len(wanted_names) == len(offered_names) == 1:
                matched[wanted_names[0]] = offered_names[0]
            else:
                doubtful += [*wanted_names, *offered_names]
            left -= set(wanted_names)
            right -= set(offered_names)
    return matched, doubtful
