"""The report's tables as files: CSV to compute with, LaTeX to paste into a paper."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.report.context import ReportContext
from pipeline.runtime.files import write_atomic
from schemas.metrics import Estimate
from schemas.results import PROTOCOLS, EvaluateMetrics, ProbeMetrics

Nested = Mapping[str, Any]


def write_tables(context: ReportContext, folder: Path) -> None:
    """Write `<table>.csv` (long: an Estimate a row) and `<table>.tex` (booktabs)."""
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
    figures = {"measure", *Estimate.model_fields}
    keys = [c for c in table.columns if c not in figures]
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
    figure = Estimate.model_validate({k: row[k] for k in Estimate.model_fields if row[k] == row[k]})
    if figure.interval_method == "few":
        return "--"
    interval = figure.interval
    ends = "" if interval is None else f" [{interval[0]:.3g}, {interval[1]:.3g}]"
    return f"{figure.value:.3g}{ends}"


def _tables(context: ReportContext) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    evaluate, probe = context.evaluate or EvaluateMetrics(), context.probe or ProbeMetrics()
    yield "reconstruction", list(rows_of(evaluate.reconstruction, ("method",)))
    yield "reconstruction_differences", list(rows_of(evaluate.differences or {}, ("pair",)))
    yield "steps", list(rows_of(evaluate.steps or {}, ("steps", "method")))
    if evaluate.identification is not None:
        kinds = evaluate.identification.kinds
        yield "identification", list(rows_of(kinds, ("match", "method")))
    manipulation = (evaluate.manipulation or {}).get("methods", {})
    yield "manipulation", list(rows_of(manipulation, ("method",)))
    truth = evaluate.true_counterfactuals or {}
    yield "true_counterfactuals", list(rows_of(truth.get("methods", {}), ("method",)))
    yield "true_counterfactuals_differences", list(rows_of(truth.get("minus", {}), ("rival",)))
    interpolation = evaluate.interpolation or {}
    yield "middle_visits", list(rows_of(interpolation.get("all", {}), ("target", "method")))
    by_gap = rows_of(interpolation.get("by_gap", {}), ("gap", "target", "method"))
    yield "middle_visits_by_gap", list(by_gap)
    yield "middle_visits_by_region", list(rows_of(interpolation.get("by_region", {}), ("region",)))
    future = evaluate.forecast or {}
    yield "forecast", list(rows_of(future.get("all", {}), ("target", "method")))
    yield "forecast_coverage", list(rows_of(future.get("coverage", {}), ("target", "method")))
    minus = rows_of(future.get("ldae_minus", {}), ("target", "rival"))
    yield "forecast_differences", list(minus)
    generation = (evaluate.generation or {}).get("sets", {})
    yield "generation", list(rows_of(generation, ("set",)))
    for protocol in PROTOCOLS:
        for target, sets in probe.figures(protocol).items():
            yield f"probe_{protocol}_{target}", list(rows_of(sets, ("features",)))
        for target, rivals in probe.differences.get(protocol, {}).items():
            yield f"probe_{protocol}_{target}_differences", list(rows_of(rivals, ("rival",)))
        for target, beside in probe.added.get(protocol, {}).items():
            yield f"probe_{protocol}_{target}_added", list(rows_of(beside, ("to",)))
        for target, within in probe.within_sources.get(protocol, {}).items():
            name = f"probe_{protocol}_{target}_within_sources"
            yield name, list(rows_of(within.figures, ("features",)))
            yield f"{name}_differences", list(rows_of(within.differences, ("rival",)))
    for target, by_site in probe.by_site.items():
        sites = {
            name: {"within": one.within, "left_out": one.left_out}
            for name, one in by_site.sites.items()
        }
        every = {"all sites": {"left_out": by_site.left_out}} if by_site.left_out else {}
        yield f"probe_cv_{target}_by_site", list(rows_of(sites | every, ("site", "judged")))


def rows_of(nested: Nested, keys: tuple[str, ...], **known: str) -> Iterator[dict[str, Any]]:
    """Yield a row a figure of nested estimates; below the keys, names of measures are joined."""
    if keys:
        for name, inner in nested.items():
            if isinstance(inner, Mapping):
                yield from rows_of(inner, keys[1:], **known, **{keys[0]: name})
        return
    for name, inner in nested.items():
        measure = f"{known['measure']} {name}" if "measure" in known else name
        if isinstance(inner, Estimate):
            yield known | {"measure": measure} | inner.model_dump()
        elif isinstance(inner, Mapping) and "value" in inner:
            yield known | {"measure": measure} | Estimate.model_validate(dict(inner)).model_dump()
        elif isinstance(inner, Mapping):
            yield from rows_of(inner, (), **(known | {"measure": measure}))
        elif isinstance(inner, int | float):
            figure = Estimate(value=inner, subjects=1, interval_method="none")
            yield known | {"measure": measure} | figure.model_dump()
