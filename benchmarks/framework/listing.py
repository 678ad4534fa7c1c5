"""Which rows there are, read from the source: importing what they measure takes half a minute."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ParamsError

ROWS = Path(__file__).parents[1] / "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What `Row` has of a row's name, its first column, and how long it takes (s)."""

    name: str
    what: str
    seconds: float = 60


def listed_rows(names: Sequence[str] = ()) -> list[Listed]:
    """Return the rows of these names, in that order; without any, of every module by its name.

    Raises
    ------
    ParamsError
        If there is no such row.
    """
    rows = {row.name: row for path in sorted(ROWS.glob("*.py")) for row in _of(path)}
    for name in names:
        if name not in rows:
            raise ParamsError(f"--what {name}: expected some of {', '.join(rows)}")
    return [rows[name] for name in names or rows]


def _of(path: Path) -> Iterator[Listed]:
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "ROWS":
            assert isinstance(statement.value, ast.List), f"{path.name}: ROWS is written as a list"
            for row in statement.value.elts:
                assert isinstance(row, ast.Call), f"{path.name}: ROWS holds Row(...)"
                given = {k.arg: k.value for k in row.keywords}
                known = {k: ast.literal_eval(given[k]) for k in Listed.__slots__ if k in given}
                yield Listed(**known)
