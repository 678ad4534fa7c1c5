"""Figures of people compared with those of their own source alone."""

import numpy as np
import pandas as pd
import pytest

from pipeline.metrics.auc_intervals import auc_interval
from pipeline.probes.confounds.within_sources import Judged, within_sources
from pipeline.probes.protocols import fit_probes
from schemas.results import ProbeMetrics
from tests.support.probe_cohort import QUICK, cohort

SITES = pd.DataFrame({"site": np.repeat(["a", "b", "c"], [40, 40, 3])})
SUBJECTS = np.arange(83).astype(str)


def judged(**scores) -> Judged:
    generator = np.random.default_rng(0)
    age = np.repeat([30.0, 70.0, 50.0], [40, 40, 3]) + generator.normal(0, 5, 83)
    known = {"site": np.repeat([30.0, 70.0, 50.0], [40, 40, 3]), "person": age + 1.0}
    known |= {"chance": np.full(83, 50.0)}
    return Judged(age, {k: v[None] for k, v in (known | scores).items()}, SUBJECTS, None)


def test_what_tells_sites_apart_reads_no_age_within_them():
    found = within_sources(SITES, judged(), "regression", first="person")
    assert found.people == {"a": 40, "b": 40}
    site, person, chance = (found.figures[name]["mae"] for name in ("site", "person", "chance"))
    assert site.value == pytest.approx(chance.value)
    assert person.value == pytest.approx(0, abs=1e-9)
    assert found.figures["site"]["mae_gain"].value == pytest.approx(0)
    assert found.differences["site"]["mae"].value == pytest.approx(-site.value)
    assert "chance" not in found.differences


def test_pairs_of_two_sources_are_not_compared():
    truth = np.tile([0.0, 1.0], 20)
    table = pd.DataFrame({"dataset": np.repeat(["a", "b"], 20)})
    right_within = truth + np.repeat([0.0, 10.0], 20)
    subjects = np.arange(40).astype(str)
    part = Judged(truth, {"y_sem": right_within[None], "x": -truth[None]}, subjects, None)
    found = within_sources(table, part, "classification", first="y_sem")
    assert found.column == "dataset"
    assert found.figures["y_sem"]["roc_auc"].value == 1
    assert auc_interval(truth, right_within[None], subjects).value < 0.8
    assert found.differences["x"]["roc_auc"].value == 1


def test_without_several_sources_of_enough_people_there_is_nothing():
    nameless = SITES.rename(columns={"site": "x"})
    assert within_sources(nameless, judged(), "regression", first="person") is None
    one = within_sources(
        SITES.iloc[:40], judged().take(np.arange(40)), "regression", first="person"
    )
    assert one is None


@pytest.mark.slow
def test_both_protocols_have_figures_within_sources():
    features, table = cohort()
    subject = table["subject_id"].str[4:].astype(int)
    table = table.assign(site=np.where(subject // 6 % 2 == 0, "a", "b"))
    document = fit_probes(features, table, QUICK).document()
    again = ProbeMetrics.model_validate_json(document.model_dump_json())
    for protocol in ("test", "cv"):
        found = again.within_sources[protocol]
        assert set(found) == {"diagnosis", "age_years"}
        assert found["diagnosis"].figures["y_sem"]["roc_auc"].value > 0.7
        assert set(found["age_years"].differences) >= {"noise", "age_sex", "oracle"}
    assert not fit_probes(features, table.drop(columns="site"), QUICK).within_sources
