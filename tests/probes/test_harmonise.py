"""ComBat within folds: what it takes out, what it leaves, and what it cannot know."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies.harmonisation import UNEQUAL, draw_people, leave_sites_out
from pipeline.metrics.auc_intervals import auc_interval
from pipeline.probes.confounds import harmonise
from pipeline.probes.confounds.harmonise import (
    HARMONISED,
    fit_harmoniser,
    require_combatlearn,
    site_codes,
)
from pipeline.probes.estimators import Head, LabelledFeatures, linear_head
from pipeline.probes.protocols import fit_probes
from pipeline.probes.targets import Target, make_target
from schemas.errors import ParamsError
from schemas.evaluation import ProbeParams
from tests.support.probe_cohort import QUICK, cohort

DIM = 8
FORTIN = ProbeParams(harmonise="fortin")


def scans(
    shift: float, people: int = 120, sites: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (age, sex, site beside y_sem), sick or not, age: both are in y_sem."""
    generator = np.random.default_rng(seed)
    site, sick = np.arange(people) % sites, np.arange(people) // sites % 2
    age, sex = generator.normal(70, 8, people), generator.integers(0, 2, people)
    y_sem = generator.normal(size=(people, DIM)) + 0.05 * (age - 70)[:, None]
    y_sem[:, :3] -= 1.0 * sick[:, None]
    y_sem += shift * generator.normal(size=(sites, DIM))[site]
    return np.column_stack([y_sem, age, sex, site]), sick.astype(float), age


def spread_of_sites(y_sem: np.ndarray, site: np.ndarray) -> float:
    """Return the variance of the means of sites, in that of scans within sites."""
    means = np.stack([y_sem[site == one].mean(axis=0) for one in np.unique(site)])
    within = np.mean([y_sem[site == one].var(axis=0) for one in np.unique(site)], axis=0)
    return float((means.var(axis=0) / within).mean())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fortin", "gam"])
def test_a_planted_site_is_taken_out_and_disease_and_age_stay(method: Any) -> None:
    x, sick, age = scans(shift=2.0, people=480)
    fit, new = np.arange(480) < 240, np.arange(480) >= 240
    subjects = np.arange(240).astype(str)
    found = fit_harmoniser(x[fit], subjects, dim=DIM, method=method).harmonised(x[new])
    site = x[new, -1]
    assert spread_of_sites(x[new, :DIM], site) > 1
    assert spread_of_sites(found, site) < 0.06

    def effects(y_sem: np.ndarray) -> tuple[float, float]:
        sites = np.eye(3)[site.astype(int)]
        design = np.column_stack([sites, sick[new], age[new]])
        solved = np.linalg.lstsq(design, y_sem, rcond=None)[0]
        return float(solved[3, :3].mean()), float(solved[4].mean())

    assert effects(found) == pytest.approx(effects(x[new, :DIM]), rel=0.06)


@pytest.mark.slow
def test_without_a_site_effect_the_harm_is_as_told() -> None:
    """docs/evaluation.md: 0.20 standard deviations with 8 sites of 10 people."""
    x, *_ = scans(shift=0.0, people=80, sites=8)
    subjects = np.arange(80).astype(str)
    found = fit_harmoniser(x, subjects, dim=DIM, method="fortin").harmonised(x)
    harm = np.sqrt(np.square(found - x[:, :DIM]).mean()) / x[:, :DIM].std(axis=0).mean()
    assert 0.1 < harm < 0.3


@pytest.mark.slow
def test_disease_is_read_better_without_a_planted_site_and_no_worse_where_there_is_none() -> None:

    def head(data: LabelledFeatures, params: ProbeParams) -> Any:
        return harmonise.harmonised_head(data, params, dim=DIM, method="fortin")

    def auc(one: Head, columns: slice, shift: float) -> float:
        x, sick, _ = scans(shift, people=240, seed=3)
        subjects = np.arange(240).astype(str)
        data = LabelledFeatures(x[:, columns], sick, subjects, "classification")
        fit, judged = np.arange(120), np.arange(120, 240)
        score = one(data.take(fit), FORTIN).score(data.features[judged])
        return auc_interval(sick[judged], score[None], subjects[judged]).value

    raw, own = slice(0, DIM), slice(None)
    assert auc(head, own, 4.0) >= auc(linear_head, raw, 4.0) - 0.02
    assert auc(head, own, 0.0) > auc(linear_head, raw, 0.0) - 0.05
    assert auc(head, own, 4.0) == pytest.approx(auc(head, own, 0.0), abs=0.05)


@pytest.mark.slow
def test_at_a_site_left_out_a_planted_site_is_mended_and_without_one_nothing_is_lost() -> None:
    """ROC-AUC of disease, with intervals; the labels of the site are never used."""
    plain = leave_sites_out(draw_people(np.random.default_rng([0, 29])))
    assert plain.difference.interval is not None
    assert not plain.difference.excludes(0)
    assert abs(plain.difference.value) < 0.02
    planted = {"shift": 2.0, "spread": 0.5, "shares": UNEQUAL}
    mended = leave_sites_out(draw_people(np.random.default_rng([0, 29]), **planted))
    assert mended.difference.excludes(0)
    assert mended.difference.value > 0
    low, high = mended.harmonised.interval
    assert low <= plain.raw.value <= high
    assert mended.raw.interval[1] < plain.raw.value
    assert (plain.kept, mended.kept) == pytest.approx((1, 1), abs=0.05)


def target(sites: list[str], unseen: str, y_sem: int = 3) -> Target:
    count = len(sites)
    table = pd.DataFrame(
        {
            "scan_id": [f"s{i}" for i in range(count)],
            "subject_id": [f"p{i}" for i in range(count)],
            "split": "train",
            "site": sites,
            "diagnosis": ["CN", "AD"] * (count // 2),
            "age_years": np.linspace(60, 80, count),
            "sex": ["F", "F", "M", "M"] * (count // 4),
        }
    )
    params = QUICK.model_copy(update={"harmonise": "fortin", "harmonise_unseen": unseen})
    features = {"y_sem": np.random.default_rng(0).normal(size=(count, y_sem))}
    return make_target("diagnosis", ("CN", "AD"), features, table, params)


@pytest.mark.parametrize(("unseen", "usable"), [("refuse", False), ("pool", True)])
@pytest.mark.parametrize("at_rome", [1, 4])
def test_a_site_unseen_in_training_or_of_one_person_is_told(at_rome, unseen, usable):
    one = target(["Oslo"] * 8 + ["Lund"] * (12 - at_rome) + ["Rome"] * at_rome, unseen)
    fit = np.arange(20) if at_rome == 1 else np.arange(16)
    names, lines = one.readable(["y_sem", HARMONISED], [(fit, np.arange(12, 20))])
    assert (HARMONISED in names) == usable
    line = lines[f"diagnosis/{HARMONISED}"]
    assert f"{at_rome} scan" in line
    assert "of a site with fewer than 2 people" in line
    assert "first Rome" in line
    assert ("such scans are left as they are" if usable else "; not read") in line
    assert one.readable([HARMONISED], [(np.arange(16), np.arange(16))]) == ([HARMONISED], {})


def test_one_site_to_fit_on_is_no_harmonisation():
    one = target(["Oslo"] * 12 + ["Lund"] * 8, "pool")
    names, lines = one.readable(["y_sem", HARMONISED], [(np.arange(12), np.arange(12, 20))])
    assert names == ["y_sem"]
    assert "fewer than 2 sites of 2 people" in lines[f"diagnosis/{HARMONISED}"]
    alone = target(["Oslo"] * 20, "pool")
    assert HARMONISED not in alone.features
    assert "no two sites" in alone.left_out[f"diagnosis/{HARMONISED}"]


def test_the_target_is_not_protected_and_sites_have_their_own_numbers():
    one = target(["Oslo"] * 12 + ["Lund"] * 8, "refuse")
    assert one.features[HARMONISED].shape == (20, 3 + 2 + 1)
    table = one.table.assign(site=["Rome", None, "Lund", "Oslo"] * 5)
    np.testing.assert_array_equal(site_codes(table)[:4, 0], [2, -1, 0, 1])
    age = make_target("age_years", None, {"y_sem": one.features["y_sem"]}, one.table, one.params)
    assert age.features[HARMONISED].shape == (20, 3 + 1 + 1)
    most = make_target("age_years", None, {"y_sem": one.features["y_sem"]}, table, one.params)
    assert "missing for 5 of 20 scans" in most.left_out["age_years/site"]


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harmonise.importlib.util, "find_spec", lambda name: None)
    require_combatlearn(ProbeParams())
    with pytest.raises(ParamsError, match=r"pip install 'ldae-pipeline\[harmonise\]'"):
        require_combatlearn(FORTIN)


@pytest.mark.slow
def test_scans_of_an_unseen_site_are_left_as_they_are() -> None:
    x, *_ = scans(shift=2.0)
    subjects = np.arange(120).astype(str)
    harmoniser = fit_harmoniser(x[x[:, -1] < 2], subjects[x[:, -1] < 2], dim=DIM, method="fortin")
    found = harmoniser.harmonised(x)
    other = x[:, -1] == 2
    np.testing.assert_array_equal(found[other], x[other, :DIM])
    assert not np.allclose(found[~other], x[~other, :DIM])
    one_by_one = np.vstack([harmoniser.harmonised(row[None]) for row in x[:9]])
    np.testing.assert_allclose(one_by_one, found[:9])


@pytest.mark.slow
def test_harmonised_y_sem_stands_in_both_protocols_and_sees_no_test_subject() -> None:
    features, table = cohort()
    subject = table["subject_id"].str[4:].astype(int)
    table = table.assign(site=np.where(subject // 6 % 2 == 0, "Lund", "Oslo"))
    params = QUICK.model_copy(update={"harmonise": "fortin"})
    first = fit_probes({"y_sem": features["y_sem"]}, table, params)
    assert HARMONISED in first.cv_metrics["diagnosis"]
    assert HARMONISED in first.metrics["age_years"]
    test = (table["split"] == "test").to_numpy()
    moved = {"y_sem": features["y_sem"] + 100 * test[:, None]}
    second = fit_probes(moved, table, params)
    for one, two in zip(
        first.fits["diagnosis"][HARMONISED].numbers(),
        second.fits["diagnosis"][HARMONISED].numbers(),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
