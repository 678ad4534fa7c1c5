"""Counterfactuals of phantoms against the truth: who is judged, and why nobody is."""

import dataclasses

import pytest

from pipeline.ground_truth.true_counterfactuals import _people, evaluate_true_counterfactuals
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
