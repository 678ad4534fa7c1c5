"""Which scans are of one visit, and which people were scanned on which scanners."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from schemas.errors import ContractError

REPEAT_COLUMNS = ("repeat", "scan_id")
"""Columns of a table of repeats: scans with the same `repeat` show one person at one visit."""

Labels = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Repeats:
    """A complete table of repeated scans: everybody on every occasion."""

    occasions: tuple[str, ...]
    """Scanners, or where a scanner did the repeats itself, `scan 1`, `scan 2`."""
    people: tuple[str, ...]
    rows: NDArray[np.intp]
    """(person, occasion): rows of the table of scans."""


def scans_with_site(table: pd.DataFrame, column: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the scans that name a site, as text in `site`, and lines on what is odd about them.

    Raises
    ------
    ContractError
        If there is no such column, or fewer than two sites.
    """
    if column not in table:
        known = ", ".join(str(name) for name in table.columns)
        raise ContractError(
            f"--site {column}: no such column in the manifest (it has {known}); name it in"
            " cohort.columns and run `pipeline cohort`"
        )
    named = table[table[column].notna()].reset_index(drop=True)
    named = named.assign(site=named[column].astype(str), subject_id=named["subject_id"].astype(str))
    lines = []
    if len(named) < len(table):
        lines.append(f"{column}: empty for {len(table) - len(named)} of {len(table)} scans")
    people = named.groupby("site")["subject_id"].nunique()
    if len(people) < 2:
        there = ", ".join(people.index) or "none"
        raise ContractError(f"--site {column}: expected two sites or more, found {there}")
    lines += [
        f"site {site}: one person, so it takes no part in reading the site"
        for site in people.index[people == 1]
    ]
    return named, lines


def visit_names(table: pd.DataFrame) -> Labels:
    """Return the visit of each scan within its person: by month, else by session, else by scan."""
    empty = pd.Series(np.nan, index=table.index)
    months = pd.to_numeric(table.get("months_from_first", empty))
    session = table.get("session_id", empty).astype(object).where(lambda name: name != "")
    names = months.map(lambda m: f"month {m:.1f}", na_action="ignore").astype(object)
    return np.asarray(names.fillna(session).fillna(table["scan_id"]).to_numpy(), dtype=str)


def named_repeats(path: Path, table: pd.DataFrame, visits: Labels) -> tuple[Labels, list[str]]:
    """Return the visits of scans with those of a table of repeats put in, and a line each fault.

    A repeat whose scans are of different people, or of which fewer than two scans are known, is
    left out; the rest counts.

    Raises
    ------
    ContractError
        If the table cannot be read or lacks a column of REPEAT_COLUMNS.
    """
    try:
        asked = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: not a readable CSV table ({error!s:.100})") from error
    missing = [name for name in REPEAT_COLUMNS if name not in asked]
    if missing:
        expected = " and ".join(REPEAT_COLUMNS)
        raise ContractError(f"{path}: no column {', '.join(missing)}; expected {expected}")
    row_of = {str(scan): row for row, scan in enumerate(table["scan_id"])}
    people = table["subject_id"].to_numpy(dtype=str)
    visits, lines = visits.astype(object), []
    for name, scans in asked.dropna().groupby("repeat", sort=False)["scan_id"]:
        rows = [row_of[scan] for scan in dict.fromkeys(scans) if scan in row_of]
        whose = sorted(set(people[rows]))
        if len(whose) > 1:
            lines.append(f"{path}: repeat {name} pairs different people ({', '.join(whose)})")
        elif len(rows) < 2:
            lines.append(f"{path}: repeat {name} has {len(rows)} known scan(s), 2 are needed")
        else:
            visits[rows] = f"repeat {name}"
    return np.asarray(visits, dtype=str), lines


def complete_repeats(table: pd.DataFrame, visits: Labels) -> Repeats | None:
    """Return the largest complete table of repeated scans, one visit a person; None without any.

    Of all sets of scanners that people were on at one visit, the one of most people is taken;
    people who were on more are among them.
    """
    by_occasion: dict[str, dict[str, int]] = {}
    whose = table["subject_id"].to_numpy(dtype=str)
    sites = table["site"].to_numpy(dtype=str)
    for (person, _), rows in pd.Series(np.arange(len(table))).groupby([whose, visits]):
        if len(rows) < 2 or str(person) in by_occasion:
            continue
        names: list[Any] = list(sites[rows])
        if len(set(names)) == 1:
            names = [f"scan {i}" for i in range(1, len(rows) + 1)]
        by_occasion[str(person)] = dict(reversed(list(zip(names, rows, strict=True))))
    if not by_occasion:
        return None
    sets = Counter(frozenset(of) for of in by_occasion.values())
    reach = {
        chosen: sum(count for other, count in sets.items() if chosen <= other) for chosen in sets
    }
    best = max(reach.items(), key=lambda item: (item[1], len(item[0]), sorted(item[0])))[0]
    occasions = sorted(best)
    people = [person for person, of in by_occasion.items() if set(occasions) <= set(of)]
    of_people = [[by_occasion[person][name] for name in occasions] for person in people]
    return Repeats(tuple(occasions), tuple(people), np.array(of_people, dtype=np.intp))
