"""Report section: training curves."""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.figures.study_plots import MODEL_NAMES, curve_term, training_curves
from pipeline.report.context import ReportContext
from pipeline.report.figure_folder import FigureFolder


def training_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return curves and last figures of each trained model, or None."""
    logs = {name: log for name, log in context.logs.items() if "step" in log}
    if not logs:
        return None
    taken_over = _taken_over(context)
    names = MODEL_NAMES | taken_over
    rows = []
    for name, log in logs.items():
        term = curve_term(log)
        train = log[term].dropna() if term in log else pd.Series(dtype=float)
        held_out = log.get(f"val_{term}", pd.Series(dtype=float)).dropna()
        seconds = log["seconds"].dropna().max() if "seconds" in log else np.nan
        rows.append(
            {
                "name": names.get(name, name),
                "steps": int(log["step"].max()),
                "minutes": f"{seconds / 60:.1f}" if np.isfinite(seconds) else "–",
                "term": {"loss": "loss", "l1": "L1"}.get(term, term),
                "train": f"{train.iloc[-1]:.4g}" if len(train) else "–",
                "val": f"{held_out.iloc[-1]:.4g}" if len(held_out) else "–",
                "lowest": _lowest(log["step"], held_out),
            }
        )
    missing = [MODEL_NAMES[name] for name in MODEL_NAMES if name not in (*logs, *taken_over)]
    picture = figures.plot(
        "training_curves",
        lambda palette: training_curves({names[name]: log for name, log in logs.items()}, palette),
    )
    elsewhere = [name for model, name in taken_over.items() if model in logs]
    return {
        "rows": rows,
        "missing": missing,
        "picture": picture,
        "elsewhere": ", ".join(elsewhere) or None,
    }


def _taken_over(context: ReportContext) -> dict[str, str]:
    """Return the names of models that came trained; they bring their own log, if any."""
    params = context.params
    sources = {
        "ae": params.autoencoder.source,
        "ldm": params.train_ldae.source,
        "ldae": params.train_ldae.source,
    }
    words = {"bundled": "bundled", "path": "of another study"}
    return {
        name: f"{MODEL_NAMES[name]} ({words[source]})"
        for name, source in sources.items()
        if source != "train"
    }


def _lowest(steps: "pd.Series[Any]", values: "pd.Series[Any]") -> str:
    if values.empty:
        return "–"
    at = steps.loc[values.index].iloc[int(values.argmin())]
    return f"{values.min():.4g} at {at:.0f}"
