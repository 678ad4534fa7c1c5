"""y_sem read by a probe of the other sites, and compared within a site."""

import numpy as np
import pandas as pd
import pytest

from pipeline.probes.confounds.left_out_sites import figures_by_site
from pipeline.probes.confounds.within_sources import Judged
from pipeline.probes.protocols import fit_probes
from pipeline.probes.targets import Target, make_target
from schemas.results import BySite, ProbeMetrics
from tests.support.probe_cohort import QUICK, cohort


def target(site: list[str], sick: np.ndarray, y_sem: np.ndarray, **more) -> Target:
    count = len(site)
    table = pd.DataFrame(
        {
            "scan_id": [f"s{i}" for i in range(count)],
            "subject_id": [f"p{i}" for i in range(count)],
            "split": "test",
            "site": site,
            "diagnosis": np.where(sick == 1, "AD", "CN"),
            "age_years": 60 + 10 * y_sem[:, 0],
        }
    ).assign(**more)
    return make_target("diagnosis", ("CN", "AD"), {"y_sem": y_sem}, table, QUICK)


def by_site(one: Target) -> tuple[BySite | None, dict[str, str]]:
    score = one.features["y_sem"][:, 0]
    chance = np.zeros(len(score))
    judged = Judged(one.truth, {"y_sem": score[None], "chance": chance[None]}, one.subjects, None)
    return figures_by_site(one, np.arange(len(score)), judged)


def people(sites: dict[str, int], seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    site = [name for name, count in sites.items() for _ in range(count)]
    sick = np.arange(len(site)) % 2.0
    y_sem = np.random.default_rng(seed).normal(size=(len(site), 3))
    y_sem[:, 0] += 1.5 * sick
    return site, sick, y_sem


def test_an_effect_that_turns_round_at_one_site_is_seen_when_it_is_left_out():
    site, sick, y_sem = people({"Lund": 30, "Oslo": 30, "Rome": 30}, seed=1)
    here = np.array(site) == "Rome"
    y_sem[here, 0] -= 3 * sick[here]
    found, lines = by_site(target(site, sick, y_sem))
    assert found is not None
    assert not lines
    assert set(found.sites) == {"Lund", "Oslo", "Rome"}
    assert found.sites["Rome"].people == 30
    assert found.sites["Rome"].left_out["roc_auc"].value < 0.3
    assert found.sites["Rome"].within["roc_auc"].value < 0.3  # the score is y_sem itself
    assert found.sites["Lund"].within["roc_auc"].excludes(0.5)
    assert found.left_out["roc_auc"].subjects == 90


def test_nobody_of_the_site_is_fitted_on_nor_a_scan_of_unknown_site():
    site, sick, y_sem = people({"Lund": 20, "Oslo": 20, "": 10})
    first = by_site(target(site, sick, y_sem))[0]
    changed = y_sem.copy()
    changed[40:] *= -50
    again = by_site(target(site, sick, changed))[0]
    assert first is not None
    assert again is not None
    for name in ("Lund", "Oslo"):
        assert first.sites[name].left_out == again.sites[name].left_out
    travelling = [f"p{i}" for i in range(20)] + [f"p{i}" for i in range(20)] + ["x"] * 10
    _, lines = by_site(target(site, sick, y_sem, subject_id=travelling))
    assert "0 subject(s) of class CN in the sites other than Lund" in lines["diagnosis/site/Lund"]


@pytest.mark.parametrize(
    ("sites", "sick_at", "line"),
    [
        ({"Lund": 20, "Oslo": 20, "Rome": 1}, None, "site Rome: 1 person, 1 CN, so the site is"),
        ({"Lund": 20, "Oslo": 20, "Rome": 8}, "Lund Oslo", "site Rome: 8 people, 0 AD"),
        ({"Lund": 20, "Oslo": 20}, "Lund", "2 are needed"),
    ],
)
def test_a_site_that_cannot_be_judged_has_a_line_and_the_others_go_on(sites, sick_at, line):
    site, sick, y_sem = people(sites)
    if sick_at is not None:
        sick = sick * np.isin(site, sick_at.split())
    found, lines = by_site(target(site, sick, y_sem))
    assert found is not None
    assert any(line in told for told in lines.values())
    assert all("\n" not in told for told in lines.values())
    if "Rome" in sites:
        assert {"Lund", "Oslo"} == {name for name, one in found.sites.items() if one.left_out}
        assert "roc_auc" in found.left_out


def test_without_two_sites_there_is_nothing():
    site, sick, y_sem = people({"Lund": 20})
    assert by_site(target(site, sick, y_sem)) == (None, {})


@pytest.mark.slow
def test_classes_and_ages_have_figures_by_site():
    features, table = cohort()
    subject = table["subject_id"].str[4:].astype(int)
    table = table.assign(
        site=np.array(["a", "b", "c"])[subject // 2 % 3], split="val", ventricle_ml=1.0
    )
    table.loc[table["subject_id"] == "sub-000", "site"] = "alone"
    document = fit_probes(features, table, QUICK).document()
    again = ProbeMetrics.model_validate_json(document.model_dump_json())
    assert set(again.by_site) == {"diagnosis", "age_years"}
    age = again.by_site["age_years"]
    assert set(age.sites) == {"a", "b", "c"}
    assert age.left_out["mae"].subjects == 35
    assert age.left_out["mae_gain"].value > 1
    assert age.sites["b"].left_out["mae_gain"].value > 0
    assert "age_years, site alone: 1 person" in again.skipped["age_years/site/alone"]
    assert again.by_site["diagnosis"].left_out["roc_auc"].excludes(0.5)
