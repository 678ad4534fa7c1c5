"""Planted slopes are found again; what visits cannot tell is refused."""

import sys

import numpy as np
import pandas as pd
import pytest

from pipeline.measurement.longitudinal import judge_change, read_measures
from pipeline.measurement.mixed_model import fit_mixed_model
from schemas.errors import ContractError, ParamsError


def cohort(people=60, *, visits=3, slopes=(-1.0, -3.0), noise=0.3, seed=0):
    """Return measures by scan and the manifest; the second group falls faster."""
    rng = np.random.default_rng(seed)
    rows, values = [], {}
    for p in range(people):
        own, group = rng.normal(50, 5), p % 2
        for months in np.array([0, 12, 24])[:visits]:
            name = f"sub-{p:02d}_M{months:02d}"
            rows.append((name, f"sub-{p:02d}", months, ("CN", "AD")[group]))
            values[name] = own + slopes[group] * months / 12 + rng.normal(0, noise)
    columns = ["scan_id", "subject_id", "months_from_first", "diagnosis"]
    return pd.DataFrame({"volume": values}), pd.DataFrame(rows, columns=columns)


def test_planted_slopes_are_found_within_people_and_by_the_model():
    measures, table = cohort()
    # The order of rows in the file means nothing.
    metrics, changes = judge_change(measures.sample(frac=1, random_state=0), table, by="diagnosis")
    result = metrics.measures["volume"]
    for found in (result.slope, result.change):
        assert found["CN"].value == pytest.approx(-1, abs=0.15)
        assert found["AD"].value == pytest.approx(-3, abs=0.15)
    model = result.model
    assert model.reference == "AD"
    assert model.effects["years"].value == pytest.approx(-3, abs=0.15)
    assert model.effects["years: CN"].value == pytest.approx(2, abs=0.2)
    assert model.effects["years: CN"].excludes(0)
    assert model.person_share > 0.95
    assert len(changes) == 60
    assert (changes["years"] == 2).all()


def test_random_slopes_of_two_visits_are_refused():
    measures, table = cohort(visits=2)
    metrics, _ = judge_change(measures, table, random_slopes=True)
    assert "two visits cannot tell a slope from noise" in metrics.skipped["volume/model"]
    assert metrics.measures["volume"].model is None
    assert metrics.measures["volume"].slope["all"].value == pytest.approx(-2, abs=0.3)


def test_small_units_do_not_change_the_model():
    measures, table = cohort()
    large, _ = judge_change(measures, table)
    small, _ = judge_change(measures * 1e-4, table)
    a, b = (m.measures["volume"].model.effects["years"] for m in (large, small))
    assert b.value == pytest.approx(a.value * 1e-4, rel=1e-3)
    assert b.low == pytest.approx(a.low * 1e-4, rel=1e-3)


def test_repeats_of_one_time_agree_as_icc_says():
    measures, table = cohort(people=40, visits=2)
    table["months_from_first"] = table["months_from_first"].replace({12: 1})
    measures["volume"] += np.random.default_rng(0).normal(0, 3, len(measures))
    metrics, _ = judge_change(measures, table)
    assert "nobody has two visits" in metrics.skipped["volume"]
    near = table.assign(months_from_first=np.tile([0.0, 1.0], 40))
    third = near[near["months_from_first"] == 1].assign(
        months_from_first=24.0, scan_id=lambda t: t["scan_id"] + "b"
    )
    more = measures.loc[third["scan_id"].str.removesuffix("b")].set_axis(third["scan_id"])
    both = pd.concat([near, third]), pd.concat([measures, more])
    result = judge_change(both[1], both[0])[0].measures["volume"]
    assert 0.5 < result.retest.value < 0.9
    assert result.retest.subjects == 40


def test_ages_stand_in_for_months_and_untimed_scans_are_told():
    measures, table = cohort()
    table["age_years"] = 70 + table.pop("months_from_first") / 12
    table.loc[0, "age_years"] = np.nan
    metrics, _ = judge_change(measures, table)
    assert metrics.measures["volume"].slope["all"].value == pytest.approx(-2, abs=0.2)
    assert "1 scans have neither months nor age" in metrics.remarks[0]


def test_few_people_have_slopes_but_no_model():
    measures, table = cohort(people=8)
    metrics, _ = judge_change(measures, table)
    assert "8 people have two visits or more, expected 20" in metrics.skipped["volume/model"]


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.formula.api", None)
    measures, table = cohort()
    scans = table.assign(
        value=measures["volume"].to_numpy(), years=table["months_from_first"] / 12, group="all"
    )
    with pytest.raises(ParamsError, match=r"ldae-pipeline\[longitudinal\]"):
        fit_mixed_model(scans)


def test_odd_tables_are_refused_in_a_line(tmp_path):
    measures, table = cohort(people=4)
    path = tmp_path / "m.csv"
    path.write_text("scan_id,a\nx,1\nx,2\n")
    with pytest.raises(ContractError, match="x has two rows"):
        read_measures(path)
    path.write_text("scan_id,a\nx,word\n")
    with pytest.raises(ContractError, match="columns of numbers"):
        read_measures(path)
    path.write_text("scan_id,a,age\nx,1,70\n")
    assert list(read_measures(path)) == ["a"]
    with pytest.raises(ContractError, match="no scan of the manifest"):
        judge_change(read_measures(path), table)
    with pytest.raises(ContractError, match="--by group"):
        judge_change(measures, table, by="group")
