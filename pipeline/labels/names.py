"""Names of people and visits: as BIDS labels, none for two of them, and matched by number."""

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
    """Return a column's name in small letters and digits alone: `Session ID` → `sessionid`."""
    return re.sub(r"[\W_]", "", name.lower())


def find_column(have: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the first of `names` that is among the columns; as written first, then however."""
    columns = list(have)
    spelt = {plain(name): name for name in reversed(columns)}
    for name in names:
        if name in columns or plain(name) in spelt:
            return name if name in columns else spelt[plain(name)]
    return None


def whole_numbers(cells: Iterable[object]) -> list[object]:
    """Return cells with `11.0` as `11` where every number with a point is whole.

    Spreadsheets and data frames write so where a column of numbers has a gap.
    """
    given = list(cells)
    texts = [cell.strip() for cell in given if isinstance(cell, str)]
    if any(DECIMAL.fullmatch(t) and not WHOLE.fullmatch(t) for t in texts):
        return given
    return [
        match[1] if isinstance(cell, str) and (match := WHOLE.fullmatch(cell.strip())) else cell
        for cell in given
    ]


class Labels:
    """BIDS labels made of names; two names never get one label."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self._made: dict[tuple[str, str], str] = {}

    def __call__(self, kind: str, name: str, *, within: str = "") -> str:
        """Return `sub-<label>` or `ses-<label>` of a name, "" where nothing is left of it.

        Sessions are compared `within` their subject.

        Raises
        ------
        ContractError
            If another name has the same label.
        """
        written = unicodedata.normalize("NFC", name).strip().removeprefix(f"{kind}-")
        label = prefixed(kind, written)
        first = self._made.setdefault((within, label), written)
        if label and first != written:
            whose = f" of {within}" if within else ""
            raise ContractError(
                f"{self._where}: {first!r} and {written!r}{whose} would both be called {label};"
                " rename one (only letters and digits count)"
            )
        return label


def without_zeros(name: str) -> str:
    """Return a name in small letters, numbers without leading zeros: `sub-0050772` → `50772`."""
    text = re.sub(r"^((sub|ses)-?)+", "", name.lower())
    return re.sub(r"0*(\d+)", r"\1", text)


def pairs(
    wanted: Iterable[str], offered: Iterable[str], keys: Iterable[Callable[[str], object]]
) -> tuple[dict[str, str], list[str]]:
    """Return which offered name is meant by each wanted one, and the names that stay ambiguous.

    Equal names belong together; the others by one key after the other, where exactly one wanted
    and one offered name have that key. A key of None fits nothing.
    """
    right = set(offered)
    found = {name: name for name in wanted if name in right}
    left = {name for name in wanted if name not in found}
    right -= set(found)
    doubtful: list[str] = []
    for key in keys:
        groups: dict[object, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for side, names in enumerate((left, right)):
            for name in sorted(names):
                groups[key(name)][side].append(name)
        for value, (mine, theirs) in groups.items():
            if value is None or not mine or not theirs:
                continue
            if len(mine) == len(theirs) == 1:
                found[mine[0]] = theirs[0]
            else:
                doubtful += [*mine, *theirs]
            left -= set(mine)
            right -= set(theirs)
    return found, doubtful
