"""Counterfactuals of phantoms against the truth: who is judged, and why nobody is."""

import dataclasses

import numpy as np
import pytest

from pipeline.ground_truth.true_counterfactuals import (
    _people,
    evaluate_true_counterfactuals,
    scale_of_change,
)
from pipeline.models.direction import Direction
from pipeline.phantom.subjects import make_subject
from schemas.params import PhantomParams

PHANTOM = PhantomParams(subjects=40, seed=3)


@pytest.fixture
def of_phantoms(study):
    """The study, as if its scans were those of a phantom cohort."""
    table = study.manifest.copy()
    numbers = range(1, len(table) + 1)
    table["subject_id"] = [f"sub-{number:03d}" for number in numbers]
    table["atrophy"] = [make_subject(number, PHANTOM).atrophy for number in numbers]
    return dataclasses.replace(study, manifest=table, phantom=PHANTOM)


@pytest.mark.slow
def test_every_way_is_given_the_same_severities(of_phantoms):
    params = of_phantoms.params
    moves = params.manipulation.model_copy(update={"true_changes": (0.4,), "max_subjects": 2})
    asked = dataclasses.replace(
        of_phantoms, params=params.model_copy(update={"manipulation": moves}), directions=None
    )
    part = evaluate_true_counterfactuals(asked)
    assert part.metrics["direction"] == "atrophy"
    assert set(part.metrics["methods"]) == {"ldae", "pca", "latent_shift", "no_change"}
    assert part.per_scan["subject_id"].nunique() == 2


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_pattern_goes_as_far_as_people_differ_and_a_weight_as_far_as_places_move(noise):
    severity = np.linspace(0, 1, 50)
    position = 2 * severity + noise * np.random.default_rng(0).normal(size=50)
    weight = Direction(np.ones(1), np.zeros(1), np.ones(1), 1.0, "up")
    pattern = dataclasses.replace(weight, pattern=np.ones(1))
    far, near = (scale_of_change(position, severity, d) for d in (pattern, weight))
    r = np.corrcoef(position, severity)[0, 1]
    assert near == pytest.approx(far * r**2)
    assert far == pytest.approx(2) or noise


def test_of_real_people_nobody_knows_the_truth(study):
    assert "of real people" in evaluate_true_counterfactuals(study).metrics["skipped"]


def test_no_changes_asked_for_leave_it_out(of_phantoms):
    manipulation = of_phantoms.params.manipulation.model_copy(update={"true_changes": ()})
    params = of_phantoms.params.model_copy(update={"manipulation": manipulation})
    asked = dataclasses.replace(of_phantoms, params=params)
    assert "true_changes is empty" in evaluate_true_counterfactuals(asked).metrics["skipped"]


def test_people_of_the_judged_split_are_drawn_again(of_phantoms):
    people = _people(of_phantoms)
    judged = of_phantoms.judged["subject_id"].tolist()
    assert [person.subject_id for person in people] == judged


def test_people_of_another_cohort_are_not_taken_for_these(of_phantoms):
    other = dataclasses.replace(of_phantoms, phantom=PhantomParams(subjects=40, seed=4))
    assert "not those of cohort.phantom" in evaluate_true_counterfactuals(other).metrics["skipped"]
