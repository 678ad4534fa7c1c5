"""What a row of the table of targets is, and where the rows are.

A module of `benchmarks/rows` has its rows in `ROWS`; nothing else is to be registered.
"""

import importlib
import pkgutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import rows as rows_folder
from benchmarks.framework.harness import Timed

AT_MOST = {"s", "min", "CPU-s", "MB", "GB", "evaluations", "× linear"}
"""Units of which less is better; of all others more is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a row came out as.

    `value` is in the row's unit. `rounds` holds every single measurement of every way, so that
    a reader sees the spread; `numbers` what else was measured, name with unit to value.
    """

    value: float
    rounds: dict[str, list[float]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table of targets."""

    name: str
    """Short and unique: `--what NAME`."""
    what: str
    """First column."""
    against: str
    """What it is compared with; `-` for an absolute figure."""
    measure: Callable[[Path], Measurement]
    """Does the work; gets an empty folder to write into. Runs in a process of its own."""
    target: float | None
    """None where a figure is only shown."""
    unit: str = "×"
    gpu_only: bool = False
    seconds: float = 60
    """About how long it takes on two cores."""
    asked: bool = False
    """Too long for every run: measured only when named."""

    def met(self, value: float) -> bool | None:
        """Whether a value reaches the target; none without a target."""
        if self.target is None:
            return None
        return value <= self.target if self.unit in AT_MOST else value >= self.target


def compare(
    timed: Sequence[Timed], *, ours: str, against: str, note: str = "", **numbers: float
) -> Measurement:
    """Return how many times faster `ours` is than `against`: the ratio of the medians (×).

    `numbers` also get the lowest and highest ratio of one round, both ways timed side by side.
    """
    rounds = {way.name: way.seconds for way in timed}
    ratios = [a / b for a, b in zip(rounds[against], rounds[ours], strict=True)]
    ratio = statistics.median(rounds[against]) / statistics.median(rounds[ours])
    spread = {"lowest of a round": min(ratios), "highest of a round": max(ratios)}
    return Measurement(value=ratio, rounds=rounds, numbers=spread | numbers, note=note)


def all_rows() -> list[Row]:
    """Return the rows of every module of `benchmarks/rows`, by name of module.

    Raises
    ------
    ValueError
        If two rows have one name.
    """
    rows = list(_rows())
    names = [row.name for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"benchmarks: two rows are called {', '.join(sorted(twice))}")
    return rows


def _rows() -> Iterator[Row]:
    for module in sorted(found.name for found in pkgutil.iter_modules(rows_folder.__path__)):
        yield from importlib.import_module(f"benchmarks.rows.{module}").ROWS
