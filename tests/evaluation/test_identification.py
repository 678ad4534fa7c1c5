"""Whether a person's other scan is found among those of all other people."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.evaluation.identification import (
    METHODS,
    Query,
    Representation,
    _about_the_mean,
    _rows,
    copy_of,
    evaluate_identification,
    queries_of,
)
from pipeline.metrics.identification import cosine_distances
from pipeline.metrics.intervals import exact_share
from schemas.results import IdentificationMetrics

USED = [method for method in METHODS if method != "tissue_amounts"]
"""Those of the tiny LDAE, which has no tissue modes."""


def test_a_query_is_the_first_scan_and_its_match_the_next_of_that_person():
    judged = pd.DataFrame(
        {
            "scan_id": ["a2", "b1", "a1", "a3"],
            "subject_id": ["a", "b", "a", "a"],
            "months_from_first": [6.0, 0.0, 0.0, 12.0],
        }
    )
    assert queries_of(judged) == [Query("a", "a1", "a2"), Query("b", "b1", None)]
    assert [query.kind for query in queries_of(judged)] == ["visit", "copy"]


def test_codes_with_a_person_in_them_find_that_person_and_noise_does_not():
    generator = np.random.default_rng(0)
    person, people = (
        generator.normal(size=(40, 30)),
        [Query(str(i), f"s{i}", None) for i in range(40)],
    )

    def rank_1(matches):
        rows = _rows("y_sem", people, *cosine_distances(person, matches))
        return np.mean([row["rank"] == 1 for row in rows])

    assert rank_1(0.3 * person + 0.05 * generator.normal(size=(40, 30))) == 1
    assert rank_1(generator.normal(size=(40, 30))) < 0.2


def test_the_query_itself_is_no_candidate_and_ties_count_against_the_match():
    people = [Query(str(i), f"s{i}", None) for i in range(4)]
    same = np.ones((4, 3))
    rows = _rows("y_sem", people, *cosine_distances(same, same))
    assert [row["rank"] for row in rows] == [4] * 4
    assert {row["candidates"] for row in rows} == {4}


def test_the_exact_interval_is_that_of_clopper_and_pearson():
    found = exact_share([1] * 9 + [0])
    assert (found.value, found.subjects, found.interval_method) == (0.9, 10, "exact")
    np.testing.assert_allclose((found.low, found.high), (0.5550, 0.9975), atol=1e-4)
    assert exact_share([0] * 8).interval == pytest.approx((0, 0.3694), abs=1e-4)
    assert exact_share([1, 0, 1]).interval is None
    with pytest.raises(ValueError, match="expected a 0 or 1"):
        exact_share([0.5] * 8)


def test_a_copy_is_another_volume_of_the_same_head(volumes):
    volume = volumes.load_unit_interval(["sub-018"])[0, 0]
    copy = copy_of(volume, "sub-018")
    torch.testing.assert_close(copy, copy_of(volume, "sub-018"), rtol=0, atol=0)
    assert (copy != copy_of(volume, "sub-019")).any()
    likeness = np.corrcoef(copy.flatten(), volume.flatten())[0, 1]
    assert 0.5 < likeness < 0.9999


@pytest.mark.slow
def test_people_are_looked_for_by_every_method(study):
    part = evaluate_identification(study)
    assert part.metrics["people"] == 3
    table = part.per_scan
    assert table.groupby("method")["subject_id"].nunique().to_dict() == dict.fromkeys(USED, 3)
    visits = table[table["subject_id"] == "sub-visits"]
    assert set(visits["match"]) == {"sub-016"}
    assert set(table.loc[table["subject_id"] != "sub-visits", "match"]) == {"copy"}
    figures = IdentificationMetrics.model_validate(part.metrics)
    assert set(figures.kinds) == {"visit", "copy"}
    assert set(figures.kinds["copy"]) == set(USED)
    # The brains of single queries are those of all at once.
    again = evaluate_identification(dataclasses.replace(study, drawn=dict(study.drawn)))
    pd.testing.assert_frame_equal(again.per_scan, table)


@pytest.mark.slow
def test_one_person_cannot_be_looked_for(study):
    one = study.manifest[~study.manifest["scan_id"].isin(["sub-018", "sub-019"])]
    part = evaluate_identification(dataclasses.replace(study, manifest=one))
    assert "fewer than 2 judged people" in part.metrics["skipped"]


@pytest.mark.slow
def test_codes_with_modes_keep_their_sizes(study):
    """Standardised, the noise of the last amounts would count as much as the first."""
    ids = study.judged["scan_id"].tolist()
    codes = study.y_sem(ids).double().numpy()
    train = study.scans.loc[study.scans["split"] == "train", "scan_id"].tolist()
    found = _about_the_mean(study, Representation(codes, codes))
    expected = codes - study.y_sem(train).double().numpy().mean(0)
    np.testing.assert_allclose(found.queries, expected, atol=1e-6)
