"""Plots of probes: ROC curves, truth against prediction, calibration."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.style import Palette
from schemas.metrics import MIN_SUBJECTS
from schemas.results import TargetResult


def calibration_plot(
    predictions: pd.DataFrame,
    targets: Mapping[str, TargetResult],
    feature_sets: Sequence[str],
    names: Mapping[str, str],
    palette: Palette,
) -> Figure:
    """Draw observed share against probability in quintiles, for each classification target."""
    chosen = [t for t in dict.fromkeys(predictions["target"])
              if targets[t].kind == "classification"]  # fmt: skip
    figure = Figure(figsize=(max(4.6, 3.3 * len(chosen)), 4.2), layout="constrained")
    for axis, target in zip(figure.subplots(1, len(chosen), squeeze=False)[0], chosen, strict=True):
        rows = predictions[predictions["target"] == target]
        axis.plot([0, 1], [0, 1], color=palette.floor, linestyle=":", linewidth=1.2)
        colours = palette.colours(feature_sets)
        for name in feature_sets:
            one = rows[rows["feature_set"] == name]
            if len(one):
                _draw_quintiles(axis, one, colours[name], names.get(name, name))
        axis.set(
            xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability",
            ylabel=f"share of {targets[target].positive}",
        )  # fmt: skip
        axis.set_title(f"{targets[target].positive} vs {targets[target].negative}")
        axis.set_box_aspect(1)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _draw_quintiles(axis: Axes, rows: pd.DataFrame, colour: str, label: str) -> None:
    order = np.array_split(np.argsort(rows["score"].to_numpy()), min(5, len(rows)))
    score, truth = rows["score"].to_numpy(float), rows["truth"].to_numpy(float)
    axis.plot(
        [score[i].mean() for i in order], [truth[i].mean() for i in order], color=colour,
        marker="o", markersize=4, linewidth=1.4, label=label,
    )  # fmt: skip


FEATURE_NAMES = {
    "y_sem": "y_sem",
    "oracle": "oracle (true volumes)",
    "chance": "chance",
    "age_sex": "age and sex",
    "site": "site alone",
    "covariates": "covariates alone",
    "y_sem harmonised": "y_sem, site taken out by ComBat",
    "y_sem + size": "y_sem and size",
    "y_sem + covariates": "y_sem and covariates",
    "y_sem - covariates": "y_sem, covariates regressed out",
    "pca_latents": "PCA of latents",
    "pca_latents_ridge": "PCA of latents, not whitened",
    "pca_latents_matched": "PCA of latents, y_sem’s size and spectrum",
    "pca_voxels_ridge": "PCA of voxels, not whitened",
    "mean_latents": "mean-pooled latents",
    "pca_voxels": "PCA of voxels",
    "measured_volumes": "measured brain and ventricles",
    "untrained": "encoder before training",
    "mode_amounts": "y_sem’s modes of latents alone",
    "tissue_amounts": "y_sem’s modes of tissue alone",
    "summary": "y_sem’s summary alone",
    "size": "size: affine scales and brain volume",
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
    "untrained",
    "mean_latents",
)
"""What y_sem is drawn beside, the foremost first."""


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


LEGEND_LETTERS = 24
"""Letters of three names that fit beneath a panel."""


def roc_and_scatter(
    predictions: pd.DataFrame, targets: Mapping[str, TargetResult], palette: Palette
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
        if targets[name].kind == "classification":
            _draw_roc(axis, rows, colours, palette)
            axis.set_title(f"{targets[name].positive} vs {targets[name].negative}")
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
    from sklearn.metrics import roc_curve

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
