"""What may be said of a figure: above chance, nearer, in doubt."""

from typing import Any

import numpy as np
import pytest

from pipeline.metrics.verdicts import chance_doubt, comparison
from pipeline.probes.linear import fit_chance
from pipeline.probes.multiplicity import adjust, holm
from schemas.evaluation import ProbeParams
from schemas.metrics import Estimate
from schemas.results import TargetResult


def about(p: float | None, count: int = 20, kind: str = "classification") -> TargetResult:
    size = {"scans": count, "subjects": count}
    judged: dict[str, Any] = {"judged_on": {"all": size, "CN": size, "AD": size}}
    if p is not None:
        judged["permutation"] = {"p": p, "permutations": 100}
    classes = {"negative": "CN", "positive": "AD"} if kind == "classification" else {}
    return TargetResult.model_validate({"kind": kind, **classes, "test": judged})


AUC = {"value": 0.8, "low": 0.6, "high": 0.9, "subjects": 40, "interval_method": "score"}


@pytest.mark.parametrize(
    ("figure", "p", "count", "doubt"),
    [
        (AUC, 0.01, 20, None),
        (AUC, 0.18, 20, "permuted labels do as well (p 0.18)"),
        (AUC | {"low": 0.45}, 0.01, 20, "the interval holds chance"),
        (AUC | {"value": 0.1, "low": 0.05, "high": 0.3}, 0.01, 20, "the interval holds chance"),
        (AUC | {"low": None, "high": None}, 0.01, 20, "no interval"),
        (AUC, None, 20, "not tested on permuted labels"),
        (AUC, 0.01, 5, "only 5 CN subjects judged"),
    ],
)
def test_interval_and_permutations_decide_together(figure, p, count, doubt):
    figures = {"roc_auc": Estimate.model_validate(figure)}
    assert chance_doubt(figures, about(p, count), "test") == doubt


def test_an_error_beats_chance_by_what_it_is_less_than_that_of_the_median() -> None:
    gain = Estimate(value=1.0, low=0.2, high=1.8, subjects=30, interval_method="hall")
    figures = {"mae": gain.model_copy(update={"value": 4.0}), "mae_gain": gain}
    regression = about(0.01, kind="regression")
    assert chance_doubt(figures, regression, "test") is None
    figures["mae_gain"] = gain.model_copy(update={"low": -0.1})
    assert chance_doubt(figures, regression, "test") == "the interval holds chance"


def test_a_method_is_nearer_only_where_the_interval_leaves_out_zero() -> None:
    error = {"value": -1.0, "low": -2.0, "high": -0.5, "subjects": 9, "interval_method": "hall"}
    assert comparison(error, more_is_better=False) == "better"
    assert comparison(error, more_is_better=True) == "worse"
    assert comparison(error | {"high": 0.1}, more_is_better=False) == "no clear difference"
    assert comparison(error | {"subjects": 4}, more_is_better=False) == "too few subjects to tell"
    assert comparison(error | {"low": -1, "high": -1}, more_is_better=False) == (
        "no clear difference"
    )


def test_chance_for_an_error_is_the_median() -> None:
    truth = np.array([1.0, 1, 1, 2, 2, 90])
    guess = fit_chance(truth, "regression", np.arange(6).astype(str)).score(np.empty((6, 0)))
    assert guess[0] == np.median(truth)
    errors = [np.abs(truth - constant).mean() for constant in (guess[0], truth.mean(), 1.4, 5)]
    assert errors[0] == min(errors)
    # One subject's ten visits are one person.
    truth = np.array([9.0] * 10 + [1, 2, 3, 4])
    subjects = np.array(["a"] * 10 + list("bcde"))
    assert fit_chance(truth, "regression", subjects).intercept == 3


def test_other_targets_are_held_together_by_holm() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    targets = {
        name: TargetResult.model_validate(
            {"kind": "regression", "test": {"permutation": {"p": p, "permutations": 99}}}
        )
        for name, p in (("diagnosis", 0.04), ("sex", 0.04), ("age_years", 0.03))
    }
    adjust(targets, ProbeParams())
    tests = {name: target.model_dump()["test"]["permutation"] for name, target in targets.items()}
    assert "p_holm" not in tests["diagnosis"]
    assert targets["diagnosis"].primary is True
    assert tests["sex"]["p_holm"] == pytest.approx(0.06)
    secondary = about(0.04)
    secondary.test.permutation.p_holm = 0.06
    assert chance_doubt({"roc_auc": Estimate.model_validate(AUC)}, secondary, "test") == (
        "permuted labels do as well (Holm’s p 0.06)"
    )
