"""Brain age: out of fold, unbiased after correction, with intervals that hold what they promise."""

import numpy as np
import pandas as pd
import pytest

from pipeline.measurement.brain_age import COLUMNS, LEVEL, brain_age, calibrate, conformal
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams

PARAMS = ProbeParams(folds=5, inner_folds=3)


def people(count=100, *, seed=0, noise=1.5, sick=0.0, visits=2, dim=6):
    """Return features in which age is seen with noise, and the table of scans."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(55, 90, count)
    ill = np.arange(count) % 4 == 0
    own = rng.normal(0, noise, count)
    rows, values = [], []
    for p in range(count):
        for visit in range(1 + (p % visits)):
            looks = (age[p] + visit - 72) / 10 + own[p] * 0.5 + ill[p] * sick / 10
            x = rng.normal(0, 1, dim)
            x[0] = looks + rng.normal(0, 0.05)
            values.append(x)
            name = f"sub-{p:03d}"
            rows.append(
                (f"{name}_{visit}", name, age[p] + visit, "AD" if ill[p] else "CN", "train")
            )
    columns = ["scan_id", "subject_id", "age_years", "diagnosis", "split"]
    return np.array(values), pd.DataFrame(rows, columns=columns)


def test_every_scan_has_a_prediction_that_its_person_took_no_part_in():
    values, table = people()
    metrics, scans = brain_age(values, table, PARAMS)
    assert tuple(scans.columns[: len(COLUMNS)]) == COLUMNS
    assert scans["scan_id"].tolist() == table["scan_id"].tolist()
    assert np.isfinite(scans["predicted"]).all()
    # Noise that tells nothing of age: in sample it would be fitted, out of fold it is not.
    noise = np.random.default_rng(1).normal(size=(len(table), 80))
    blind, _ = brain_age(noise, table, PARAMS)
    assert blind.error.value > 0.9 * blind.chance
    assert metrics.error.value < 0.8 * metrics.chance


def test_faint_numbers_do_not_drown_those_that_age_is_in():
    """As late modes of y_sem are: standardised, they would count as much as the first."""
    values, table = people()
    faint = 0.02 * np.random.default_rng(1).normal(size=(len(table), 200))
    alone, beside = (brain_age(x, table, PARAMS)[0] for x in (values, np.hstack([values, faint])))
    assert beside.error.value < 1.1 * alone.error.value


def test_a_persons_age_does_not_reach_its_own_prediction():
    values, table = people()
    _, before = brain_age(values, table, PARAMS)
    changed = table.copy()
    own = table["subject_id"] == "sub-007"
    changed.loc[own, "age_years"] += 3
    _, after = brain_age(values, changed, PARAMS)
    for column in ("predicted", "low", "high"):
        assert before.loc[own, column].tolist() == after.loc[own, column].tolist()


def test_the_correction_takes_the_bias_out():
    values, table = people(200, noise=2.0)
    metrics, scans = brain_age(values, table, PARAMS)
    assert metrics.before.r < -0.4
    assert abs(metrics.after.r) < 0.2
    assert np.allclose(scans["gap"], scans["corrected"] - scans["age"])
    line = calibrate(np.array([60.0, 65.0, 70.0]), np.array([55.0, 65.0, 75.0]))
    assert (line.slope, line.intercept) == pytest.approx((0.5, 32.5))
    assert line.corrected(np.array([60.0]), np.array([55.0])) == pytest.approx([55.0])


def test_sick_brains_look_older_where_age_is_learned_from_the_healthy():
    values, table = people(200, noise=1.0, sick=8.0)
    metrics, scans = brain_age(values, table, PARAMS, reference=("diagnosis", "CN"))
    assert metrics.reference == "diagnosis:CN"
    assert metrics.reference_people == 150
    assert len(scans) == len(table)
    assert metrics.gap["AD"].excludes(0)
    assert metrics.gap["AD"].value > 2
    assert abs(metrics.gap["CN"].value) < 1.5
    with pytest.raises(ContractError, match="nobody with an age"):
        brain_age(values, table, PARAMS, reference=("diagnosis", "MCI"))


def test_ages_that_no_fit_saw_are_marked():
    values, table = people()
    eldest = table["age_years"].idxmax()
    table.loc[table["subject_id"] == table["subject_id"][eldest], "age_years"] += 15
    table["site"] = "Lund"
    metrics, scans = brain_age(values, table, PARAMS)
    assert scans.loc[eldest, "out_of_range"]
    assert metrics.out_of_range == scans["out_of_range"].sum() < 10
    assert set(scans["site"]) == {"Lund"}


def test_the_conformal_rank_is_exact_and_few_errors_tell_nothing():
    errors = np.arange(1.0, 20.0)
    assert conformal(errors, 0.9) == 18
    assert conformal(errors[:9], 0.9) == 9
    assert np.isnan(conformal(errors[:8], 0.9))
    assert conformal(errors, 0.95) == 19
    values, table = people(30)
    metrics, scans = brain_age(values, table, PARAMS)
    assert scans["low"].isna().all()
    assert metrics.coverage is None
    assert metrics.remarks[0].startswith(f"{len(scans)} of {len(scans)} scans have no interval")
    assert "needs 9 calibrating people" in metrics.remarks[0]
    some, scans = brain_age(values, table, PARAMS, reference=("diagnosis", "CN"))
    assert f"{len(scans)} of {len(scans)} scans" in some.remarks[0], "those of no reference too"


@pytest.mark.slow
def test_intervals_hold_new_people_as_often_as_they_promise():
    held = []
    for seed in range(40):
        values, table = people(60, seed=seed, visits=3)
        _, scans = brain_age(values, table, PARAMS)
        inside = (scans["low"] <= scans["age"]) & (scans["age"] <= scans["high"])
        held.append(inside.groupby(scans["subject_id"]).mean().mean())
    # Twelve calibrating people promise 12/13 = 0.92.
    assert LEVEL - 0.01 <= np.mean(held) <= 0.94


def test_too_few_people_are_refused_in_a_line():
    values, table = people(12)
    with pytest.raises(ContractError, match="12 people to learn from, expected at least 15"):
        brain_age(values, table, PARAMS)
