"""What ComBat within folds does to the reading of a disease at a site that is left out.

Run: python -m benchmarks.studies.harmonisation (its table stands in benchmarks/results)

Cohorts are drawn with a known effect of disease and a known effect of sites. Each site is left out
in turn, in halves: the label layer is fitted on the people of all other sites; ComBat on these and
on the site's other half, whose labels nobody uses, since a site that it has not seen cannot be
harmonised. People are ranked within their half.

`tests/probes/test_harmonise.py` runs a part of it.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.auc_intervals import auc_difference, auc_interval
from pipeline.probes.confounds.harmonise import fit_harmoniser
from pipeline.probes.estimators import LabelledFeatures, code_head
from schemas.evaluation import ProbeParams
from schemas.metrics import Estimate

Floats = NDArray[np.float64]

PARAMS = ProbeParams(inner_folds=3)
SITES = 4
DIM, SICK_DIM = 20, 3
DISEASE = 0.8
"""Shift of each of SICK_DIM numbers by disease, in standard deviations within site and class."""
AGE = 0.03
"""Shift of every number by a year of age."""
UNEQUAL = (0.2, 0.4, 0.6, 0.8)
"""Shares of the sick at the sites, where they differ."""


@dataclass(frozen=True, slots=True)
class People:
    """One scan a person."""

    y_sem: Floats
    """(person, dim)."""
    age: Floats
    sex: Floats
    site: NDArray[np.intp]
    sick: NDArray[np.bool_]

    @property
    def inputs(self) -> Floats:
        """Return what the harmoniser takes: y_sem, age, sex, code of the site."""
        return np.column_stack([self.y_sem, self.age, self.sex, self.site])


@dataclass(frozen=True, slots=True)
class Judged:
    """ROC-AUC of sites left out, and the effect of disease that is left."""

    raw: Estimate
    harmonised: Estimate
    difference: Estimate
    """Harmonised minus raw, paired."""
    kept: float
    """Effect of disease within sites after ComBat on everybody, of that before: slope."""


def draw_people(
    generator: np.random.Generator,
    *,
    people: int = 240,
    shift: float = 0.0,
    spread: float = 0.0,
    shares: tuple[float, ...] = (0.5,) * SITES,
) -> People:
    """Return people of len(shares) sites, whose numbers a site shifts and stretches.

    `shift` is the standard deviation of a site's shift, `spread` that of the logarithm of its
    stretch, each drawn for every number. `shares` of the people of each site are sick.
    """
    sites = len(shares)
    site = np.arange(people) % sites
    rank = np.arange(people) // sites
    sick = rank < np.asarray(shares)[site] * (people // sites)
    age, sex = generator.normal(70, 8, people), generator.integers(0, 2, people).astype(float)
    y_sem = generator.normal(size=(people, DIM)) + AGE * (age - 70)[:, None]
    y_sem[:, :SICK_DIM] -= DISEASE * sick[:, None]
    y_sem *= np.exp(spread * generator.normal(size=(sites, DIM)))[site]
    y_sem += shift * generator.normal(size=(sites, DIM))[site]
    return People(y_sem, age, sex, site, sick)


def leave_sites_out(cohort: People, *, seed: int = 0) -> Judged:
    """Return how well a disease is read at sites that are left out, raw and harmonised."""
    people = len(cohort.age)
    names, truth = np.arange(people).astype(str), cohort.sick.astype(float)
    half = np.empty(people, dtype=np.intp)
    generator = np.random.default_rng(seed)
    for key in np.unique(np.column_stack([cohort.site, cohort.sick]), axis=0):
        rows = np.flatnonzero((cohort.site == key[0]) & (cohort.sick == key[1]))
        half[generator.permutation(rows)] = np.arange(len(rows)) % 2
    scores = np.zeros((2, people))
    for left_out in np.unique(cohort.site):
        fit = cohort.site != left_out
        raw = _layer(cohort.y_sem[fit], truth[fit], names[fit])
        for judged in (
            (cohort.site == left_out) & (half == 0),
            (cohort.site == left_out) & (half == 1),
        ):
            scores[0, judged] = raw.score(cohort.y_sem[judged])
            combat = _combat(cohort, ~judged)
            layer = _layer(combat.harmonised(cohort.inputs[fit]), truth[fit], names[fit])
            scores[1, judged] = layer.score(combat.harmonised(cohort.inputs[judged]))
    fold = (2 * cohort.site + half)[None]
    raw, harmonised = (auc_interval(truth, one[None], names, fold) for one in scores)
    difference = auc_difference(truth, scores[1:], scores[:1], names, fold)
    everybody = _combat(cohort, np.ones(people, dtype=bool)).harmonised(cohort.inputs)
    before, after = (_disease(cohort, y_sem) for y_sem in (cohort.y_sem, everybody))
    return Judged(raw, harmonised, difference, float(after @ before / (before @ before)))


def _combat(cohort: People, rows: NDArray[np.bool_]):  # noqa: ANN202
    names = np.arange(len(rows)).astype(str)
    dim = cohort.y_sem.shape[1]
    return fit_harmoniser(cohort.inputs[rows], names[rows], dim=dim, method="fortin")


def _layer(x: Floats, truth: Floats, names: NDArray[np.str_]):  # noqa: ANN202
    return code_head(LabelledFeatures(x, truth, names, "classification"), PARAMS)


def _disease(cohort: People, y_sem: Floats) -> Floats:
    """Return the effect of disease on each number (dim,), beside site, age and sex."""
    sites = np.eye(cohort.site.max() + 1)[cohort.site]
    design = np.column_stack([cohort.sick, sites, cohort.age, cohort.sex])
    return np.asarray(np.linalg.lstsq(design, y_sem, rcond=None)[0][0])


def simulated_rows(cohorts: int):  # noqa: ANN201
    """Yield a row a kind of cohort: the first cohort with its intervals, and means over cohorts."""
    kinds = {
        "no site effect": {},
        "no site effect, 80 people": {"people": 80},
        "sites shift by 2 SD": {"shift": 2.0},
        "shift by 2 SD and stretch by a factor e^0.5": {"shift": 2.0, "spread": 0.5},
        "the same, 20 to 80 % are sick": {"shift": 2.0, "spread": 0.5, "shares": UNEQUAL},
        "no site effect, 20 to 80 % are sick": {"shares": UNEQUAL},
    }
    for name, kind in kinds.items():
        found = [
            leave_sites_out(draw_people(np.random.default_rng([seed, 29]), **kind), seed=seed)
            for seed in range(cohorts)
        ]
        yield [name, *_told(found[0]), *_means(found)]


def _told(judged: Judged) -> list[str]:
    return [str(figure) for figure in (judged.raw, judged.harmonised, judged.difference)]


def _means(found: list[Judged]) -> list[str]:
    differences = np.array([one.difference.value for one in found])
    error = differences.std(ddof=1) / np.sqrt(len(found))
    kept = np.mean([one.kept for one in found])
    return [f"{differences.mean():+.3f} ± {error:.3f}", f"{100 * kept:.0f} %"]


def main() -> None:
    """Print tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=25)
    options = parser.parse_args()
    columns = ["people", "raw", "harmonised", "difference", "over cohorts", "disease kept"]
    print("| " + " | ".join(columns) + " |\n|---|---|---|---|---|---|")
    for row in simulated_rows(options.cohorts):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
