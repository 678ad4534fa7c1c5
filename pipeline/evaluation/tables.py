"""The report's tables as files: CSV to compute with, LaTeX to paste into a paper."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.compute import write_atomic
from pipeline.evaluation.context import ReportContext
from schemas.metrics import FEWEST_SUBJECTS

Nested = Mapping[str, Any]


def write_tables(context: ReportContext, folder: Path) -> None:
    """Write `<table>.csv` (long: value, low, high, subjects) and `<table>.tex` (booktabs)."""
    for name, rows in _tables(context):
        table = pd.DataFrame(rows)
        if table.empty:
            continue
        write_atomic(folder / f"{name}.csv", table.to_csv(index=False))
        write_atomic(folder / f"{name}.tex", latex(table))
    responses = context.per_scan.get("manipulation")
    if responses is not None:
        dose = responses.groupby(["method", "scale"], as_index=False)["ventricle_ml"].mean()
        write_atomic(folder / "dose.csv", dose.to_csv(index=False))


def latex(table: pd.DataFrame) -> str:
    """Return a wide booktabs table: a row a case, a column a measure, intervals in brackets."""
    keys = [c for c in table.columns if c not in ("measure", "value", "low", "high", "subjects")]
    cells = table.assign(cell=[_cell(row) for row in table.to_dict("records")])
    measures = list(dict.fromkeys(table["measure"]))
    wide = cells.pivot_table(
        index=keys, columns="measure", values="cell", aggfunc="first", sort=False
    )
    wide = wide[measures].reset_index().fillna("--")
    wide.columns.name = None
    text: str = wide.to_latex(index=False, escape=True)
    return text


def _cell(row: Mapping[Any, Any]) -> str:
    known = row["subjects"] >= FEWEST_SUBJECTS
    interval = f" [{row['low']:.3g}, {row['high']:.3g}]" if known else ""
    return f"{row['value']:.3g}{interval}"


def _tables(context: ReportContext) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    evaluate, probe = context.evaluate or {}, context.probe or {}
    yield "reconstruction", list(rows_of(evaluate.get("reconstruction", {}), ("method",)))
    yield "reconstruction_differences", list(rows_of(evaluate.get("differences", {}), ("pair",)))
    yield "steps", list(rows_of(evaluate.get("steps", {}), ("steps", "method")))
    manipulation = evaluate.get("manipulation", {}).get("methods", {})
    yield "manipulation", list(rows_of(manipulation, ("method",)))
    interpolation = evaluate.get("interpolation", {})
    yield "middle_visits", list(rows_of(interpolation.get("all", {}), ("target", "method")))
    by_gap = rows_of(interpolation.get("by_gap", {}), ("gap", "target", "method"))
    yield "middle_visits_by_gap", list(by_gap)
    generation = evaluate.get("generation", {}).get("sets", {})
    yield "generation", list(rows_of(generation, ("set",)))
    for protocol in ("test", "cv"):
        for target, sets in probe.get(protocol, {}).items():
            yield f"probe_{protocol}_{target}", list(rows_of(sets, ("features",)))


def rows_of(nested: Nested, keys: tuple[str, ...], **known: str) -> Iterator[dict[str, Any]]:
    """Yield a row a figure of nested estimates; below the keys, names of measures are joined."""
    if keys:
        for name, inner in nested.items():
            if isinstance(inner, Mapping):
                yield from rows_of(inner, keys[1:], **known, **{keys[0]: name})
        return
    for name, inner in nested.items():
        measure = f"{known['measure']} {name}" if "measure" in known else name
        if isinstance(inner, Mapping) and "value" in inner:
            yield known | {"measure": measure} | dict(inner)
        elif isinstance(inner, Mapping):
            yield from rows_of(inner, (), **(known | {"measure": measure}))
        elif isinstance(inner, int | float):
            figure = {"value": inner, "low": inner, "high": inner, "subjects": 1}
            yield known | {"measure": measure} | figure
