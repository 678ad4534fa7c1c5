"""How often the intervals of reports hold the truth.

python -m benchmarks.studies.interval_coverage

Cohorts are drawn from distributions whose true figure is known, by a formula or by what each
fitted direction does in the whole population. `tests/metrics/test_interval_coverage.py` runs a
part of it.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from pipeline.metrics.auc_intervals import auc_limits, averaged, difference_limits, rank
from pipeline.metrics.intervals import mean_limits, refit_inflation, subject_means
from pipeline.probes.linear import fit_chance, fit_linear

Floats = NDArray[np.float64]
Scores = Literal["normal", "unequal", "exponential"]

BLOCK = 2_000_000
"""Pairs of scans compared at a time."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Who is judged: half of the subjects are positive, or `positives` of them."""

    subjects: int
    visits: int = 1
    """Scans a subject, at most; every second subject has one less (at least one)."""
    alike: float = 0.7
    """Correlation of the scans of a subject."""
    positives: int | None = None

    @property
    def whose(self) -> NDArray[np.intp]:
        """Return the subject of each scan."""
        people = np.arange(self.subjects)
        return np.repeat(people, np.maximum(1, self.visits - people % 2))

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Return whether each scan is of a positive subject."""
        count = self.subjects // 2 if self.positives is None else self.positives
        return self.whose < count

    def noise(self, draws: int, generator: np.random.Generator, size: int = 1) -> Floats:
        """Return standard normal figures (draw, scan, size), alike within subjects."""
        whose = self.whose
        alike = self.alike if self.visits > 1 else 1.0
        own = generator.standard_normal((draws, self.subjects, size))[:, whose]
        scans = generator.standard_normal((draws, len(whose), size))
        noise: Floats = np.sqrt(alike) * own + np.sqrt(1 - alike) * scans
        return noise


def covered(limits: tuple[Floats, Floats], truth: float) -> float:
    """Return the share of intervals that hold the truth."""
    low, high = limits
    return float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean())


def auc_coverage(
    cohort: Cohort, area: float, *, draws: int, seed: int = 0, scores: Scores = "normal"
) -> float:
    """Return the coverage of ROC-AUC of a fixed reader whose true AUC is `area`."""
    generator = np.random.default_rng([seed, cohort.subjects, cohort.visits, int(1000 * area)])
    noise, positive = cohort.noise(draws, generator)[..., 0], cohort.positive
    if scores == "exponential":
        waiting = -norm.logsf(noise)
        score = np.where(positive, area / (1 - area) * waiting, waiting)
    else:
        ratio = 2.0 if scores == "unequal" else 1.0
        shift = norm.ppf(area) * np.hypot(1, ratio)
        score = np.where(positive, shift + ratio * noise, noise)
    pairs = int(positive.sum() * (~positive).sum())
    blocks = np.array_split(score, max(1, draws * pairs // BLOCK))
    limits = [auc_limits(rank(positive, block, cohort.whose)) for block in blocks]
    return covered(
        (np.concatenate([a for a, _ in limits]), np.concatenate([b for _, b in limits])), area
    )


def auc_difference_coverage(
    cohort: Cohort, areas: tuple[float, float], *, draws: int, seed: int = 0
) -> float:
    """Return the coverage of the difference of two readers' AUCs, their noise half shared."""
    generator = np.random.default_rng([seed, cohort.subjects, cohort.visits, 7])
    both, positive = cohort.noise(draws, generator, 3), cohort.positive
    readers = [
        np.where(positive, norm.ppf(area) * np.sqrt(2), 0.0)
        + np.sqrt(0.5) * both[..., 2]
        + np.sqrt(0.5) * both[..., k]
        for k, area in enumerate(areas)
    ]
    one, other = (rank(positive, score, cohort.whose) for score in readers)
    return covered(difference_limits(one, other), areas[0] - areas[1])


def mae_coverage(
    cohort: Cohort, bias: float, *, draws: int, seed: int = 0, heavy: bool = False
) -> float:
    """Return the coverage of the mean absolute error of a fixed reader with normal errors.

    Heavy: absolute errors are exponential.
    """
    generator = np.random.default_rng([seed, cohort.subjects, cohort.visits, 11])
    noise = cohort.noise(draws, generator)[..., 0]
    error, truth = np.abs(bias + noise), _folded(bias, 1.0)
    if heavy:
        error, truth = -norm.logsf(noise), 1.0
    return covered(mean_limits(subject_means(error, cohort.whose)), truth)


def difference_coverage(cohort: Cohort, effect: float, *, draws: int, seed: int = 0) -> float:
    """Return the coverage of the paired difference of two readers' absolute errors.

    The second reader's errors are larger by the factor 1 + effect.
    """
    generator = np.random.default_rng([seed, cohort.subjects, cohort.visits, 13])
    both = cohort.noise(draws, generator, 2)
    first = np.abs(both[..., 0])
    second = (1 + effect) * np.abs((both[..., 0] + both[..., 1]) / np.sqrt(2))
    truth = -effect * _folded(0.0, 1.0)
    return covered(mean_limits(subject_means(first - second, cohort.whose)), truth)


def _folded(mean: float, std: float) -> float:
    """Return the mean absolute value of a normal variable."""
    tail = norm.cdf(-mean / std)
    return float(
        std * np.sqrt(2 / np.pi) * np.exp(-0.5 * (mean / std) ** 2) + mean * (1 - 2 * tail)
    )


@dataclass(frozen=True, slots=True)
class Validation:
    """Cross-validation of a reader fitted in every fold."""

    features: int = 10
    folds: int = 5
    repeats: int = 3
    tuned: bool = False
    """The probes' own layer, its strength picked by inner folds; else the difference of means."""

    def folds_of(self, cohort: Cohort, generator: np.random.Generator) -> NDArray[np.intp]:
        """Return the fold of each scan: subjects whole, classes spread evenly."""
        whose, positive = cohort.whose, cohort.positive
        fold = np.empty(len(whose), dtype=np.intp)
        count = min(self.folds, *(len(np.unique(whose[own])) for own in (positive, ~positive)))
        for own in (positive, ~positive):
            people = generator.permutation(np.unique(whose[own]))
            for place, person in enumerate(people):
                fold[whose == person] = place % count
        return fold

    def direction(self, x: Floats, cohort: Cohort, fit: NDArray[np.bool_]) -> Floats:
        """Return the weights (draw, feature) fitted on some scans of x (draw, scan, feature)."""
        whose, positive = cohort.whose, cohort.positive
        if not self.tuned:
            means = [
                subject_means(np.moveaxis(x[:, fit & own], 1, 2), whose[fit & own]).mean(axis=-1)
                for own in (positive, ~positive)
            ]
            difference: Floats = means[0] - means[1]
            return difference
        probes = [
            fit_linear(
                one[fit], positive[fit].astype(float), whose[fit].astype(str), "classification",
                folds=3, seed=0,
            )
            for one in x
        ]  # fmt: skip
        return np.array([probe.coef / probe.std for probe in probes])


def cv_auc_coverage(
    cohort: Cohort, shift: float, validation: Validation, *, draws: int, seed: int = 0
) -> tuple[float, float, float]:
    """Return the coverage of a cross-validated AUC, the truth, and coverage without `refits`.

    Classes differ by `shift` in the first feature, so that each fit's AUC in the population is
    known; the truth is the mean over fits.
    """
    key = [seed, cohort.subjects, cohort.visits, int(10 * shift), 17]
    generator = np.random.default_rng(key)
    x = cohort.noise(draws, generator, validation.features)
    x[:, cohort.positive, 0] += shift
    truth, rankings = [], []
    for _ in range(validation.repeats):
        fold = validation.folds_of(cohort, generator)
        score = np.empty(x.shape[:2])
        for number in np.unique(fold):
            weight = validation.direction(x, cohort, fold != number)
            held = fold == number
            score[:, held] = np.einsum("dsf,df->ds", x[:, held], weight)
            length = np.linalg.norm(weight, axis=1)
            truth.append(norm.cdf(shift * weight[:, 0] / np.maximum(length, 1e-12) / np.sqrt(2)))
        rankings.append(rank(cohort.positive, score, cohort.whose, fold))
    whole, expected = averaged(rankings), float(np.mean(truth))
    with_and_without = [covered(auc_limits(whole, refits=on), expected) for on in (True, False)]
    return with_and_without[0], expected, with_and_without[1]


def cv_mae_coverage(
    cohort: Cohort, slope: float, validation: Validation, *, draws: int, seed: int = 0
) -> tuple[float, float]:
    """Return the coverage of a cross-validated MAE, and of how much less it is than the median's.

    The target is slope times the first feature plus standard normal noise, read by ridge with its
    strength picked by inner folds.
    """
    generator = np.random.default_rng([seed, cohort.subjects, cohort.visits, int(10 * slope), 19])
    hits, whose = np.zeros((draws, 2, 2)), cohort.whose.astype(str)
    truths = []
    for draw in range(draws):
        x = cohort.noise(1, generator, validation.features + 1)[0]
        y, x = slope * x[:, 0] + x[:, -1], x[:, :-1]
        errors, known = np.zeros((2, len(y))), []
        for _ in range(validation.repeats):
            order = generator.permutation(cohort.subjects) % validation.folds
            fold = order[cohort.whose]
            for number in range(validation.folds):
                fit, held = fold != number, fold == number
                probe = fit_linear(x[fit], y[fit], whose[fit], "regression", folds=3, seed=0)
                middle = float(fit_chance(y[fit], "regression", whose[fit]).intercept)
                errors[0, held] += np.abs(y[held] - probe.score(x[held])) / validation.repeats
                errors[1, held] += np.abs(y[held] - middle) / validation.repeats
                beta = probe.coef / probe.std
                offset = probe.intercept - float((probe.mean * beta).sum())
                rest = np.hypot(1, np.linalg.norm(beta - slope * np.eye(len(beta))[0]))
                known.append((_folded(offset, rest), _folded(middle, np.hypot(1, slope))))
        means = subject_means(errors, cohort.whose)
        inflation = refit_inflation(validation.folds)
        for k, figure in enumerate((means[0], means[1] - means[0])):
            hits[draw, k] = np.array(mean_limits(figure, inflation=inflation))
        truths.append(np.mean(known, axis=0))
    model, guess = np.mean(truths, axis=0)
    return (
        covered((hits[:, 0, 0], hits[:, 0, 1]), model),
        covered((hits[:, 1, 0], hits[:, 1, 1]), guess - model),
    )


def fixed_rows(draws: int) -> Iterator[list[str]]:
    """Yield rows of the table of fixed readers judged on a test set."""
    for subjects in (10, 20, 40, 80):
        for visits in (1, 3):
            cohort = Cohort(subjects, visits)
            for scores in ("normal", "unequal", "exponential"):
                areas = (0.5, 0.65, 0.8, 0.9, 0.95, 0.99)
                if scores != "normal" and visits > 1:
                    continue
                found = [auc_coverage(cohort, a, draws=draws, scores=scores) for a in areas]
                name = f"AUC {', '.join(map(str, areas))}, {scores} scores"
                yield [name, str(subjects), str(visits), *_shares(found)]
            pairs = ((0.5, 0.5), (0.8, 0.8), (0.9, 0.7))
            found = [auc_difference_coverage(cohort, pair, draws=draws) for pair in pairs]
            yield [
                "difference of AUCs .5/.5, .8/.8, .9/.7",
                str(subjects),
                str(visits),
                *_shares(found),
            ]
            found = [mae_coverage(cohort, bias, draws=draws) for bias in (0.0, 1.0)]
            found += [mae_coverage(cohort, 0.0, draws=draws, heavy=True)]
            yield ["MAE, bias 0, 1 SD, heavy tails", str(subjects), str(visits), *_shares(found)]
            found = [difference_coverage(cohort, effect, draws=draws) for effect in (0.0, 0.5)]
            yield [
                "paired difference of errors, 0, 50 %",
                str(subjects),
                str(visits),
                *_shares(found),
            ]


def cv_rows(draws: int) -> Iterator[list[str]]:
    """Yield rows of the table of cross-validation."""
    for subjects in (10, 20, 40, 80):
        for visits in (1, 3):
            cohort = Cohort(subjects, visits)
            for features in (2, 20):
                validation = Validation(features)
                found = [
                    cv_auc_coverage(cohort, shift, validation, draws=draws)
                    for shift in (0.0, 1.0, 2.0, 3.0)
                ]
                name = f"AUC, difference of means on {features} features"
                told = [f"{hit:.3f} ({plain:.3f}) at {truth:.2f}" for hit, truth, plain in found]
                yield [name, str(subjects), str(visits), "; ".join(told)]


def tuned_rows(draws: int) -> Iterator[list[str]]:
    """Yield rows of cross-validation with the probes' own layers, refitted in every fold."""
    for subjects in (20, 40, 80):
        cohort = Cohort(subjects)
        few = max(50, draws // 20)
        found = [
            cv_auc_coverage(cohort, shift, Validation(20, tuned=True), draws=few)
            for shift in (0.0, 2.0)
        ]
        told = [f"{hit:.3f} ({plain:.3f}) at {truth:.2f}" for hit, truth, plain in found]
        yield [
            f"AUC, the probes' layer on 20 features ({few} draws)",
            str(subjects),
            "1",
            "; ".join(told),
        ]
        for slope in (0.0, 2.0):
            mae, gain = cv_mae_coverage(cohort, slope, Validation(10), draws=few)
            told = [f"MAE {mae:.3f}; less than the median's {gain:.3f}"]
            name = f"ridge on 10 features, slope {slope:g} ({few} draws)"
            yield [name, str(subjects), "1", *told]


def _shares(found: list[float]) -> list[str]:
    return [", ".join(f"{share:.3f}" for share in found)]


TABLES = {
    "fixed": ("A fixed reader on a test set", fixed_rows),
    "cv": ("Cross-validation", cv_rows),
    "tuned": ("Cross-validation of the probes' own layers", tuned_rows),
}


def main() -> None:
    """Print tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument(
        "--tables", nargs="+", choices=TABLES, default=["fixed", "cv"], help="tuned: half an hour."
    )
    options = parser.parse_args()
    draws = options.draws
    print(f"Share of 95 % intervals that hold the truth; {draws} cohorts a figure.\n")
    print("In brackets: with the interval of a fixed reader.\n")
    for title, rows in (TABLES[name] for name in options.tables):
        print(f"## {title}\n\n| figure | subjects | visits | coverage |\n|---|---|---|---|")
        for row in rows(draws):
            print("| " + " | ".join(row) + " |", flush=True)
        print()


if __name__ == "__main__":
    main()
