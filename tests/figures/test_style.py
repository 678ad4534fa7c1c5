"""Colours and legends of plots, light and dark."""

import pandas as pd
from matplotlib.figure import Figure

from pipeline.figures.probe_plots import FEATURE_NAMES, roc_and_scatter
from pipeline.figures.style import DARK, LIGHT, darkened, figure_bytes, figure_style
from schemas.results import TargetResult


def test_every_method_of_a_plot_has_a_colour():
    names = [f"method {i}" for i in range(7)]
    colours = LIGHT.colours(names)
    assert list(colours) == names
    assert colours["method 0"] == LIGHT.accent
    assert len(set(colours.values())) == 1 + len(LIGHT.others)


def test_roc_curves_can_be_told_apart_by_their_legend(tmp_path):
    sets = list(FEATURE_NAMES)
    rows = pd.DataFrame(
        [
            {"target": "sex", "feature_set": name, "truth": i % 2, "score": float(i)}
            | {"subject_id": f"sub-{i}"}
            for name in sets
            for i in range(6)
        ]
    )
    about = {"sex": TargetResult(kind="classification", positive="M", negative="F")}
    with figure_style():
        figure = roc_and_scatter(rows, about, LIGHT)
        figure.savefig(tmp_path / "roc.png")
    legend = figure.legends[0]
    assert legend.get_texts()[0].get_text() == "y_sem"
    assert figure.bbox.containsx(legend.get_window_extent().x0)
    assert figure.bbox.containsx(legend.get_window_extent().x1)
    lines = [(line.get_color(), line.get_linestyle()) for line in legend.get_lines()]
    assert len(lines) == len(set(lines)) >= 5
    alone = rows.assign(subject_id=[f"sub-{t}" for t in rows["truth"]])
    assert not roc_and_scatter(alone, about, LIGHT).legends, "one subject a class is not ranked"


def test_a_dark_plot_is_the_light_one_in_other_colours() -> None:
    with figure_style() as palette:
        figure = Figure()
        for colour in palette:
            figure.subplots().plot([0, 1], color=colour)
        light = figure_bytes(figure, "svg")
    dark = darkened(light)
    assert len(set(LIGHT)) == len([*LIGHT]) == 10, "one for one"
    for before, after in zip(LIGHT, DARK, strict=True):
        count = light.count(before.encode())
        assert count
        assert (dark.count(before.encode()), dark.count(after.encode())) == (0, count)
