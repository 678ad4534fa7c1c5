"""Plots of the cohort, the training curves and inverted noise."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline.figures.probe_plots import LEGEND_LETTERS
from pipeline.figures.style import Palette

MODEL_NAMES = {
    "ae": "Autoencoder",
    "ldm": "Latent diffusion (stage 1)",
    "ldae": "LDAE (stage 2)",
}
SPLIT_ORDER = ("train", "val", "test")
SMOOTHING_ROWS = 40
"""A curve with more rows than this is drawn smoothed over its raw values."""


def training_curves(logs: Mapping[str, pd.DataFrame], palette: Palette) -> Figure:
    """Draw the loss of each model (name to log) against its step, validation beside it if any.

    A log has the columns step and loss; where a validated term (`l1` with `val_l1`) is logged,
    that term is drawn, as the two can be compared.
    """
    figure = Figure(figsize=(3.55 * len(logs), 2.75), layout="constrained")
    axes = figure.subplots(1, len(logs), squeeze=False)[0]
    for axis, (model, log) in zip(axes, logs.items(), strict=True):
        _draw_curve(axis, log, palette)
        axis.set_title(model)
        axis.set_xlabel("optimiser step")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def curve_term(log: pd.DataFrame) -> str:
    """Return the logged term that a curve shows: one with a validation figure, or the loss."""
    validated = [c.removeprefix("val_") for c in log.columns if c.startswith("val_")]
    return next(
        (term for term in ("loss", *validated) if term in validated and term in log), "loss"
    )


def _draw_curve(axis: Axes, log: pd.DataFrame, palette: Palette) -> None:
    term = curve_term(log)
    drawn = []
    if term in log:
        train = log[["step", term]].dropna()
        drawn.append(train[term])
        window = max(1, len(train) // SMOOTHING_ROWS)
        smooth = train[term].rolling(window, center=True, min_periods=1).mean()
        if window > 1:
            axis.plot(train.step, train[term], color=palette.accent, alpha=0.25, linewidth=0.8)
        axis.plot(train.step, smooth, color=palette.accent, label="training")
    if f"val_{term}" in log:
        held_out = log[["step", f"val_{term}"]].dropna()
        drawn.append(held_out[f"val_{term}"])
        axis.plot(
            held_out.step,
            held_out[f"val_{term}"],
            color=palette.others[0],
            marker="o",
            markersize=3,
            linewidth=1.1,
            label="validation",
        )
        axis.legend()
    values = pd.concat(drawn) if drawn else pd.Series(dtype=float)
    if len(values) and values.min() > 0 and values.max() > 8 * values.min():
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel({"loss": "loss", "l1": "L1"}.get(term, term))


def cohort_ages(manifest: pd.DataFrame, palette: Palette) -> Figure:
    """Draw how ages are spread over the splits, and by diagnosis where there are several."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    panels: list[tuple[str, str, Sequence[str]]] = [("Age by split", "split", SPLIT_ORDER)]
    diagnoses = sorted(manifest["diagnosis"].dropna().unique()) if "diagnosis" in manifest else []
    if 1 < len(diagnoses) <= 6:
        manifest = manifest.assign(diagnosis=manifest["diagnosis"].fillna("not given"))
        panels.append(("Age by diagnosis", "diagnosis", [*diagnoses, "not given"]))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    ages = pd.to_numeric(manifest["age_years"], errors="coerce")
    low, high = np.floor(ages.min() / 5) * 5, np.ceil((ages.max() + 1e-6) / 5) * 5
    bins = np.arange(low, high + 5, 5)
    colours = (palette.accent, *palette.others)
    for axis, (title, column, groups) in zip(axes, panels, strict=True):
        present = [g for g in groups if (manifest[column] == g).any()]
        axis.hist(
            [ages[manifest[column] == group].dropna() for group in present],
            bins=list(bins),
            stacked=True,
            label=present,
            color=[colours[i % len(colours)] for i in range(len(present))],
            rwidth=0.92,
        )
        axis.set_title(title)
        axis.set_xlabel("age (years)")
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.grid(visible=False, axis="x")
        # Beneath its own panel: long names in one row would reach into the other's.
        columns = 3 if len("".join(present)) <= LEGEND_LETTERS else 2
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.26), ncols=columns)
    axes[0].set_ylabel("scans")
    return figure


def health_plot(health: pd.DataFrame, palette: Palette) -> Figure:
    """Draw mean, std and kurtosis of inverted noise, one dot a row, against a Gaussian's."""
    figure = Figure(figsize=(7.2, 1.65), layout="constrained")
    panels = (("mean", 0.0, 0.2), ("std", 1.0, 0.2), ("kurtosis", 3.0, 0.6))
    for axis, (name, ideal, half) in zip(figure.subplots(1, 3), panels, strict=True):
        values = health[name].to_numpy(dtype=float)
        values = values[np.isfinite(values)]
        axis.axvline(ideal, color=palette.bound, linewidth=1.6)
        spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(values)) * (len(values) > 1)
        axis.scatter(values, spread, s=24, color=palette.accent, alpha=0.8, edgecolors="none")
        reach = max([half, *(1.15 * np.abs(values - ideal))])
        axis.set(xlim=(ideal - reach, ideal + reach), ylim=(-1, 1), yticks=[], title=name)
        axis.spines["left"].set_visible(False)
        axis.grid(visible=False, axis="y")
        axis.xaxis.set_major_locator(MaxNLocator(5))
    return figure
