"""Plots of numbers. Each function returns a Figure; call it inside `figure_style`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from sklearn.metrics import roc_curve

from pipeline.evaluation.style import Palette
from pipeline.evaluation.targets import MIN_SUBJECTS

FEATURE_NAMES = {
    "y_sem": "y_sem",
    "oracle": "oracle (true volumes)",
    "chance": "chance",
    "age_sex": "age and sex",
    "pca_latents": "PCA of latents",
    "pca_latents_ridge": "PCA of latents, not whitened",
    "pca_latents_matched": "PCA of latents, y_sem’s size and spectrum",
    "pca_voxels_ridge": "PCA of voxels, not whitened",
    "mean_latents": "mean-pooled latents",
    "pca_voxels": "PCA of voxels",
    "measured_volumes": "measured brain and ventricles",
    "random_encoder": "encoder, random weights",
    "supervised_encoder": "encoder, trained on labels",
    "y_sem_knn": "y_sem, nearest neighbours",
    "y_sem_mlp": "y_sem, perceptron",
}
RIVALS = (
    "supervised_encoder",
    "pca_latents",
    "measured_volumes",
    "age_sex",
    "pca_voxels",
    "random_encoder",
    "mean_latents",
)
"""What y_sem is drawn beside, the foremost first."""
MODEL_NAMES = {
    "ae": "Autoencoder",
    "ldm": "Latent diffusion (stage 1)",
    "ldae": "LDAE (stage 2)",
}
SPLIT_ORDER = ("train", "val", "test")
SMOOTHING_ROWS = 40
"""A curve with more rows than this is drawn smoothed over its raw values."""


def feature_name(feature_set: str, target: str = "") -> str:
    """Return how a feature set is called in tables and legends.

    The baseline on age and sex never contains the target itself.
    """
    if feature_set == "age_sex" and target in ("age_years", "sex"):
        return "sex only" if target == "age_years" else "age only"
    return FEATURE_NAMES.get(feature_set, feature_set.replace("_", " "))


def feature_colours(feature_sets: Collection[str], palette: Palette) -> dict[str, str]:
    """Return a colour for each feature set that is drawn: as many of RIVALS as there are left."""
    fixed = {"y_sem": palette.accent, "oracle": palette.bound, "chance": palette.floor}
    rivals = zip((name for name in RIVALS if name in feature_sets), palette.others, strict=False)
    return {name: c for name, c in (fixed | dict(rivals)).items() if name in feature_sets}


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


LEGEND_LETTERS = 24
"""Letters of three names that fit beneath a panel."""


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


def roc_and_scatter(
    predictions: pd.DataFrame, targets: Mapping[str, Mapping[str, Any]], palette: Palette
) -> Figure:
    """Draw a ROC curve for each classification target and truth against guess for each other.

    `predictions` are the rows of one protocol (probes.PREDICTION_COLUMNS); `targets` says which
    target is of which kind.
    """
    names = list(dict.fromkeys(predictions["target"]))
    figure = Figure(figsize=(max(4.8, 3.55 * len(names)), 4.1), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rows = predictions[predictions["target"] == name]
        colours = feature_colours(set(rows["feature_set"]), palette)
        if targets[name]["kind"] == "classification":
            _draw_roc(axis, rows, colours, palette)
            axis.set_title(f"{targets[name]['positive']} vs {targets[name]['negative']}")
        else:
            _draw_scatter(axis, rows, colours, palette)
            axis.set_title(name.replace("_years", " (years)").replace("_", " "))
        axis.set_box_aspect(1)
    # One legend below all: curves reach every corner of a ROC plot.
    shown: dict[str, Artist] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    if shown:
        columns = min(2 * len(names), len(shown))
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=columns)
    return figure


def _draw_roc(axis: Axes, rows: pd.DataFrame, colours: Mapping[str, str], palette: Palette) -> None:
    axis.plot([0, 1], [0, 1], color=palette.floor, linestyle=":", linewidth=1.2)
    if rows.groupby("truth")["subject_id"].nunique().min() < MIN_SUBJECTS:
        axis.text(0.5, 0.6, "one subject of a class:\nnothing to rank", ha="center")
        colours = {}
    for name, colour in colours.items():
        one = rows[rows["feature_set"] == name]
        if name == "chance" or one["truth"].nunique() < 2:
            continue
        false_alarms, hits, _ = roc_curve(one["truth"], one["score"])
        axis.plot(
            false_alarms,
            hits,
            color=colour,
            linewidth=2.2 if name == "y_sem" else 1.2,
            zorder=3 if name == "y_sem" else 2,
            linestyle="--" if name == "oracle" else "-",
            label=feature_name(name),
        )
    axis.set_xlabel("false positive rate")
    axis.set_ylabel("true positive rate")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _draw_scatter(
    axis: Axes, rows: pd.DataFrame, colours: Mapping[str, str], palette: Palette
) -> None:
    truth = rows["truth"]
    margin = 0.06 * (truth.max() - truth.min()) + 1e-6
    low, high = truth.min() - margin, truth.max() + margin
    axis.plot([low, high], [low, high], color=palette.floor, linewidth=1.0)
    guess = rows.loc[rows["feature_set"] == "chance", "score"]
    if len(guess):
        axis.axhline(
            guess.mean(), color=palette.floor, linestyle=":", linewidth=1.2, label="mean guess"
        )
    for name in ("oracle", "y_sem"):
        one = rows[rows["feature_set"] == name]
        if len(one):
            solid = name == "y_sem"
            axis.scatter(
                one["truth"],
                one["score"],
                s=26 if solid else 16,
                color=colours[name] if solid else "none",
                edgecolors="none" if solid else colours[name],
                linewidths=0.9,
                alpha=0.85,
                label=feature_name(name),
                zorder=3 if solid else 2,
            )
    axis.set(xlim=(low, high), xlabel="true", ylabel="read from the scan")


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
