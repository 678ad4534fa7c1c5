"""Planted random effects are found again, balanced and not; agreement is that of the textbooks."""

import numpy as np
import pytest

from pipeline.metrics.agreement import icc_agreement, icc_of_each
from pipeline.metrics.variance_components import variance_components

DIM = 240
PLANTED = {"person": 4.0, "visit": 0.6, "site": 1.2, "person_site": 0.5, "scan": 0.8}


def planted(person, visit, site, *, seed=0, sd=PLANTED):
    """Return values (scan, DIM) with random effects, and the shares that were in fact drawn."""
    rng = np.random.default_rng(seed)
    groups = {
        "person": person,
        "visit": np.char.add(np.char.add(person, "/"), visit),
        "site": site,
        "person_site": np.char.add(np.char.add(person, "/"), site),
        "scan": np.arange(len(person)).astype(str),
    }
    values, drawn = np.zeros((len(person), DIM)), {}
    for part, names in groups.items():
        known, index = np.unique(names, return_inverse=True)
        effects = rng.normal(0, np.sqrt(sd[part]), (len(known), DIM))
        drawn[part] = effects.var(axis=0, ddof=1).sum() if len(known) > 1 else 0.0
        values += effects[index]
    total = sum(drawn.values())
    return values, {part: value / total for part, value in drawn.items()}


def balanced():
    grid = [(f"p{p:02d}", f"v{v}", f"s{s}") for p in range(30) for v in range(2) for s in range(3)]
    return (np.array(column) for column in zip(*grid, strict=True))


def unbalanced():
    """Ninety people with one to three visits on one of four scanners; thirty were on all."""
    rows = []
    for p in range(90):
        name = f"p{p:02d}"
        rows += [(name, f"v{v}", f"s{p % 4}") for v in range(1 + p % 3)]
        if p < 30:
            rows += [(name, "v0", f"s{s}") for s in range(4) if s != p % 4]
    return (np.array(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("design", [balanced, unbalanced])
def test_planted_shares_are_recovered_within_a_tenth(design, seed):
    person, visit, site = design()
    values, truth = planted(person, visit, site, seed=seed)
    shares = variance_components(values, person=person, visit=visit, site=site).shares
    assert shares == pytest.approx(truth, rel=0.1)


def test_balanced_components_are_those_of_the_analysis_of_variance():
    person, visit, site = balanced()
    values, _ = planted(person, visit, site, seed=3)
    y = values[:, :1]
    found = variance_components(y, person=person, visit=visit, site=site).pooled
    cube = y.reshape(30, 2, 3)
    whole, person_mean, site_mean = cube.mean(), cube.mean(axis=(1, 2)), cube.mean(axis=(0, 1))
    visits, pairs = cube.mean(axis=2), cube.mean(axis=1)
    rest = cube - visits[..., None] - pairs[:, None] + person_mean[:, None, None]
    error = np.square(rest).sum() / (30 * 1 * 2)
    between_visits = 3 * np.square(visits - person_mean[:, None]).sum() / 30
    fit = pairs - person_mean[:, None] - site_mean + whole
    between_pairs = 2 * np.square(fit).sum() / (29 * 2)
    between_people = 6 * person_mean.var(ddof=1)
    between_sites = 60 * site_mean.var(ddof=1)
    expected = {
        "person": (between_people - between_visits - between_pairs + error) / 6,
        "visit": (between_visits - error) / 3,
        "site": (between_sites - between_pairs) / 60,
        "person_site": (between_pairs - error) / 2,
        "scan": error,
    }
    assert found == pytest.approx(expected, rel=1e-4)


def test_person_on_site_needs_people_who_were_on_another_site_at_another_visit():
    """Otherwise it goes with the rest, and visits on one site seem to change less."""
    person, visit, site = unbalanced()
    values, truth = planted(person, visit, site)
    returned = np.isin(person, person[visit == "v1"])
    travelled = np.isin(person, [f"p{p:02d}" for p in range(30)])
    rows = ~(returned & travelled & (visit != "v0"))
    told = {"person": person[rows], "visit": visit[rows], "site": site[rows]}
    shares = variance_components(values[rows], **told).shares
    assert set(shares) == {"person", "visit", "site", "scan"}
    assert shares["visit"] < 0.7 * truth["visit"]


def test_what_scans_cannot_tell_apart_is_left_out():
    person = np.repeat([f"p{i}" for i in range(20)], 2)
    visit, site = np.tile(["a", "b"], 20), np.full(40, "only")
    values, _ = planted(person, visit, site)
    found = variance_components(values, person=person, visit=visit, site=site)
    assert set(found.pooled) == {"person", "scan"}
    with pytest.raises(ValueError, match="nobody was scanned twice"):
        variance_components(values[::2], person=person[::2], visit=visit[::2], site=site[::2])


def test_a_part_that_is_not_there_gets_nothing():
    person, visit, site = balanced()
    values, _ = planted(
        person, visit, site, sd=PLANTED | {"site": 0.0, "visit": 0.0, "person_site": 0.0}
    )
    shares = variance_components(values, person=person, visit=visit, site=site).shares
    assert max(shares["site"], shares["visit"], shares["person_site"]) < 0.01


def test_repeats_that_are_equal_leave_everything_to_the_person():
    person = np.repeat([f"p{i}" for i in range(20)], 3)
    site = np.tile(["a", "b", "c"], 20)
    values = np.random.default_rng(0).normal(size=(20, 5))[np.arange(60) // 3]
    shares = variance_components(values, person=person, visit=person, site=site).shares
    assert shares["person"] == pytest.approx(1, abs=1e-3)


def test_agreement_is_that_of_shrout_and_fleiss():
    ratings = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    )
    found = icc_agreement(ratings)
    assert found.value == pytest.approx(0.2898, abs=5e-5)
    assert found.interval == pytest.approx((0.019, 0.761), abs=1e-3)
    assert icc_of_each(ratings[..., None].astype(float)) == pytest.approx([found.value])


def test_a_shift_between_occasions_is_disagreement():
    rng = np.random.default_rng(0)
    person = rng.normal(size=50)
    repeats = np.stack([person, person + rng.normal(0, 0.1, 50)], axis=1)
    assert icc_agreement(repeats).value > 0.97
    assert icc_agreement(repeats + np.array([0, 3])).value < 0.3


@pytest.mark.slow
def test_the_interval_of_agreement_covers_what_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        values = rng.normal(0, 1, (12, 1)) + rng.normal(0, 0.5, 3) + rng.normal(0, 0.6, (12, 3))
        low, high = icc_agreement(values).interval
        hits += low <= 1 / (1 + 0.25 + 0.36) <= high
    assert 0.92 <= hits / 1000 <= 0.98


def test_tables_that_cannot_be_judged_are_refused():
    with pytest.raises(ValueError, match="3 on 2 are needed"):
        icc_agreement(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="missing"):
        icc_agreement(np.array([[1, 2], [np.nan, 1], [3, 4]]))
    with pytest.raises(ValueError, match="equal"):
        icc_agreement(np.ones((5, 2)))
