"""What so many people can show, and the same in the documentation."""

import re

import numpy as np
import pytest

from pipeline.metrics.auc_intervals import auc_interval
from pipeline.metrics.sample_sizes import what_people_show
from tests.support.paths import ROOT


def documented(row: int) -> list[str]:
    text = (ROOT / "docs" / "evaluation.md").read_text()
    table = re.search(r"\| people of each class \|.*?\n\n", text, re.DOTALL)
    assert table is not None
    return [cell.strip() for cell in table[0].splitlines()[row].strip("|").split("|")][1:]


def shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


@pytest.mark.parametrize(("row", "cross_validated"), [(2, False), (4, True)])
def test_the_documented_table_is_that_of_the_function(row: int, cross_validated: bool) -> None:
    found = what_people_show(cross_validated=cross_validated)
    assert documented(0) == [str(one.people) for one in found]
    assert documented(row) == [shown(one.half_width) for one in found]
    assert documented(row + 1) == [shown(one.least) for one in found]


def test_it_is_what_an_interval_of_drawn_people_shows() -> None:
    generator = np.random.default_rng(0)
    truth, subjects = np.repeat([0.0, 1.0], 25), np.arange(50).astype(str)
    widths = []
    for _ in range(200):
        score = generator.normal(size=50) + 0.954 * truth  # a ROC-AUC of 0.75
        interval = auc_interval(truth, score[None], subjects).interval
        assert interval is not None
        widths.append((interval[1] - interval[0]) / 2)
    (expected,) = (o for o in what_people_show(cross_validated=False) if o.people == 25)
    assert np.mean(widths) == pytest.approx(expected.half_width, rel=0.05)
