"""Means over people, and p-values of many regions."""

import numpy as np
import pandas as pd
import pytest

from pipeline.regions.summary import latex_of, summarise, table_of


def changes(people, effects, noise=1.0):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "subject_id": f"sub-{person}",
            "region": region,
            "kind": "atlas",
            "ml": 10.0,
            "volume_percent": effect + noise * rng.normal(),
            "volume_ml": 0.1 * effect,
            "intensity_percent": 0.0,
        }
        for person in range(people)
        for _ in range(2)
        for region, effect in effects.items()
    )


def test_a_true_effect_stands_out_of_many_regions():
    effects = {"large": -5.0} | {f"none {i}": 0.0 for i in range(20)}
    found = summarise(changes(12, effects))
    large = found["large"]
    assert large.people == 12
    assert large.volume_percent.excludes(0)
    assert large.p < large.p_fdr <= large.p_holm < 1e-3
    others = [found[name] for name in effects if name != "large"]
    assert sum(o.p_holm < 0.05 for o in others) == 0
    assert all(o.p <= o.p_fdr <= o.p_holm + 1e-12 for o in others)


def test_the_family_wise_error_is_kept():
    false = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        table = changes(8, {f"r{i}": 0.0 for i in range(20)})
        person = table.groupby(["subject_id", "region"]).ngroup()
        table["volume_percent"] = rng.normal(size=person.max() + 1)[person]
        false += any(e.p_holm < 0.05 for e in summarise(table).values())
    assert false <= 5  # 1 or 2 are expected


def test_few_people_have_no_interval_and_no_p():
    found = summarise(changes(3, {"a": 1.0}))["a"]
    assert found.p is None
    assert found.volume_percent.interval is None
    table = table_of({"scale +1": {"a": found}})
    assert table.loc[0, "volume_percent_low"] is None
    assert table.loc[0, "people"] == 3


def test_tables_name_what_survives_all_regions():
    groups = {"scale +1": summarise(changes(12, {"large": -5.0, "none_L": 0.0}))}
    text = latex_of(groups)
    assert "large" in text
    assert r"none\_L" in text
    assert (
        "*" in text.splitlines()[next(i for i, t in enumerate(text.splitlines()) if "large" in t)]
    )
    assert table_of(groups)["group"].unique().tolist() == ["scale +1"]
    assert pytest.approx(10.0) == table_of(groups)["ml"].iloc[0]
