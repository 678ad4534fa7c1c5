"""Plots of the evaluation: steps, dose-response, middle visits."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from pipeline.figures.style import Palette
from schemas.metrics import Estimate
from schemas.results import FiguresOfSets

Estimates = Mapping[str, Mapping[str, Any]]


def _span(estimate: Mapping[str, Any]) -> tuple[float, float]:
    """Return the ends of an interval; where there is none, the value alone."""
    value = float(estimate["value"])
    return Estimate.model_validate(estimate).interval or (value, value)


def steps_plot(
    steps: Mapping[str, FiguresOfSets], names: Mapping[str, str], palette: Palette
) -> Figure:
    """Draw SSIM and MSE inside the brain against the number of sampler steps, by method."""
    figure = Figure(figsize=(7.8, 3.0), layout="constrained")
    counts = sorted(int(count) for count in steps)
    methods = list(dict.fromkeys(m for found in steps.values() for m in found))
    colours = palette.colours(methods)
    panels = (("ssim_brain", "SSIM, brain"), ("mse_brain", "MSE, brain"))
    for axis, (metric, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for method in methods:
            at = [count for count in counts if method in steps[str(count)]]
            found = [steps[str(count)][method][metric] for count in at]
            axis.plot(
                at, [e.value for e in found], color=colours[method], marker="o", markersize=4,
                label=names.get(method, method),
            )  # fmt: skip
            low, high = zip(*(e.interval or (e.value, e.value) for e in found), strict=True)
            axis.fill_between(
                at, low, high,
                color=colours[method], alpha=0.15, linewidth=0,
            )  # fmt: skip
        axis.set(title=title, xlabel="steps each way", xscale="log")
        axis.xaxis.set_major_locator(FixedLocator(counts))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(ScalarFormatter())
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def dose_plot(
    responses: pd.DataFrame,
    panels: Mapping[str, str],
    names: Mapping[str, str],
    palette: Palette,
    *,
    unit: str,
) -> Figure:
    """Draw each measure's change from scale 0 against the scale: thin subjects, strong mean.

    `unit` of the scales stands under the axis.
    """
    present = {measure: title for measure, title in panels.items() if measure in responses}
    figure = Figure(figsize=(9.2, 2.9), layout="constrained")
    axes = figure.subplots(1, len(present), squeeze=False)[0]
    methods = list(dict.fromkeys(responses["method"]))
    colours = palette.colours(methods)
    for axis, (measure, title) in zip(axes, present.items(), strict=True):
        for method in methods:
            wide = responses[responses["method"] == method].pivot_table(
                index="subject_id", columns="scale", values=measure
            )
            if measure != "identity":
                wide = wide.sub(wide[min(wide.columns, key=abs)], axis=0)
            axis.plot(wide.columns, wide.T, color=colours[method], alpha=0.22, linewidth=0.8)
            axis.plot(
                wide.columns, wide.mean(), color=colours[method], linewidth=2.2, marker="o",
                markersize=3.5, label=names.get(method, method),
            )  # fmt: skip
        if measure != "identity":
            axis.axhline(0, color=palette.floor, linewidth=0.9, linestyle=":")
        axis.set(title=title, xlabel=f"scale ({unit})")
        axis.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes[0].legend()
    return figure


def middle_visit_plot(
    groups: Mapping[str, Estimates],
    measures: Mapping[str, str],
    names: Mapping[str, str],
    palette: Palette,
) -> Figure:
    """Draw each measure by method, one mark a group of gaps, with intervals."""
    figure = Figure(figsize=(9.2, 0.9 + 0.42 * 5), layout="constrained")
    methods = list(dict.fromkeys(m for methods in groups.values() for m in methods))
    colours = (palette.accent, *palette.others)
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axis, (measure, title) in zip(axes, measures.items(), strict=True):
        for g, (group, found) in enumerate(groups.items()):
            offset = 0.16 * (g - (len(groups) - 1) / 2)
            for y, method in enumerate(methods):
                if method not in found:
                    continue
                e = found[method][measure]
                axis.plot(
                    _span(e), [y + offset] * 2, color=colours[g % len(colours)],
                    linewidth=1.4, alpha=0.6,
                )  # fmt: skip
                axis.plot(
                    e["value"], y + offset, "o", color=colours[g % len(colours)], markersize=5,
                    label=group if y == 0 else None,
                )  # fmt: skip
        axis.set_title(title)
        axis.set_yticks(range(len(methods)), [names.get(m, m) for m in methods])
        axis.invert_yaxis() if axis is axes[0] else None
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(visible=False, axis="y")
    handles, labels = axes[0].get_legend_handles_labels()
    if len(groups) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(groups))
    return figure
