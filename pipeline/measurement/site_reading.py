"""How well a scan's site is read from its numbers, on people who took no part in the fit."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.probes.linear import many_fits
from schemas.results import SiteReading

Labels = NDArray[np.str_]
Rows = NDArray[np.intp]

FEWEST_PEOPLE = 2
"""Sites of fewer people cannot be left out and fitted on at once."""


def read_site(
    features: NDArray[np.floating],
    site: Labels,
    person: Labels,
    *,
    folds: int,
    permutations: int,
    seed: int,
) -> SiteReading:
    """Return how often the site of features (scan, dim) is named, by leaving people out.

    Linear discriminant analysis with Ledoit and Wolf's shrinkage and equal priors. Accuracy is
    balanced: the mean over sites of the mean over their people, so that a guess scores 1 / sites.
    Its p-value exchanges sites between people who were on one site alone, and between the scans of
    people who were on several. Sites of one person are left aside.

    Raises
    ------
    ValueError
        If fewer than two sites have FEWEST_PEOPLE people.
    """
    people = pd.DataFrame({"site": site, "person": person}).drop_duplicates()["site"].value_counts()
    sites = sorted(people.index[people >= FEWEST_PEOPLE])
    if len(sites) < 2:
        raise ValueError(f"fewer than two sites of {FEWEST_PEOPLE} people")
    chosen = np.isin(site, sites)
    x, site, person = np.asarray(features, float)[chosen], site[chosen], person[chosen]
    several = np.isin(person, _on_several(site, person))
    folds = min(folds, int(people[sites].min()))
    rng = np.random.default_rng(seed)
    with many_fits(x.size):
        named = _named(x, site, _folds(site, person, folds, seed))
        # Folds are made anew: those of the true sites are even in the true sites alone.
        exchanged = [_exchanged(site, person, several, rng) for _ in range(permutations)]
        by_chance = [
            balanced_accuracy(
                _named(x, labels, _folds(labels, person, folds, seed)), labels, person
            )
            for labels in exchanged
        ]
    accuracy = balanced_accuracy(named, site, person)
    as_good = sum(other >= accuracy - 1e-12 for other in by_chance)
    repeats = None
    if several.any():
        repeats = balanced_accuracy(named[several], site[several], person[several])
    return SiteReading(
        accuracy=accuracy,
        chance=1 / len(sites),
        p=(1 + as_good) / (1 + permutations) if permutations else None,
        permutations=permutations,
        on_repeats=repeats,
        sites=len(sites),
        people=len(np.unique(person)),
        scans=len(x),
    )


def balanced_accuracy(named: Labels, site: Labels, person: Labels) -> float:
    """Return the mean over sites of the mean over people of the share of their scans named."""
    hits = pd.DataFrame({"site": site, "person": person, "hit": named == site})
    return float(hits.groupby(["site", "person"])["hit"].mean().groupby("site").mean().mean())


def _on_several(site: Labels, person: Labels) -> Labels:
    sites = pd.Series(site).groupby(person).nunique()
    return np.asarray(sites.index[sites > 1], dtype=str)


def _folds(site: Labels, person: Labels, folds: int, seed: int) -> Rows:
    """Return the fold of each scan; the people of each site (their first scan's) are spread."""
    names, first, index = np.unique(person, return_index=True, return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(len(names))
    drawn = drawn[np.argsort(site[first][drawn], kind="stable")]
    of_person = np.empty(len(names), dtype=np.intp)
    of_person[drawn] = np.arange(len(names)) % max(folds, 2)
    return of_person[index]


def _named(x: NDArray[np.float64], site: Labels, fold: Rows) -> Labels:
    """Return the site that is named for each scan by a fit without its fold."""
    named = np.empty(len(x), dtype=site.dtype)
    for held_out in np.unique(fold):
        fit, judged = fold != held_out, fold == held_out
        known = np.unique(site[fit])
        if len(known) < 2:
            named[judged] = known[0]
            continue
        layer = LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto", priors=np.full(len(known), 1 / len(known))
        )
        model = make_pipeline(StandardScaler(), layer).fit(x[fit], site[fit])
        named[judged] = model.predict(x[judged])
    return named


def _exchanged(
    site: Labels, person: Labels, several: NDArray[np.bool_], rng: np.random.Generator
) -> Labels:
    """Return sites exchanged as they might have been if they did nothing to scans."""
    labels = site.copy()
    alone, index = np.unique(person[~several], return_inverse=True)
    if len(alone):
        of_person = np.array([site[person == name][0] for name in alone])
        labels[~several] = rng.permutation(of_person)[index]
    for name in np.unique(person[several]):
        rows = np.flatnonzero(person == name)
        labels[rows] = rng.permutation(site[rows])
    return labels
