"""How a vector of numbers (y_sem, a latent) goes on within people, and how far from that.

A person's numbers at month t are level + (rate + own) · t + noise: `rate` is shared by everybody,
`own` varies between people and `noise` between scans of one person. The two scatters have one
shape over the numbers, that of the fitting people's departures, and two sizes, told apart by how
departures grow with the months between visits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from pipeline.runtime.digests import digest_of
from schemas.errors import ContractError

Floats = NDArray[np.float64]

NOBODY = "nobody has two visits at different months; a forecast learns from people seen twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A person's numbers at a later month."""

    mean: Floats
    """(dim,)."""
    variance: float
    """Of a new scan about `mean`, in units of `Course.departures`."""
    own_share: float
    """Weight of the person's own slope against the population's, 0 (one visit) to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What people who were seen twice tell of the next visit."""

    rate: Floats
    """(dim,): change a month, the pooled least-squares slope within people."""
    noise: float
    """Variance between scans of one person and month (sum over the numbers)."""
    own: float
    """Variance of people's own slopes about `rate` (sum over the numbers, a month squared)."""
    departures: Floats
    """(departure, dim): how each person's visits departed from `rate`, in units of the standard
    deviation expected of them; weighted so that every person counts once and the outer products
    add up to the shape of the scatter."""
    people: int
    longest_months: float
    """Longest time between two visits of one person."""

    def expected(self, values: Floats, months: Floats, at: float) -> Expected:
        """Return what follows a person's own visits, (visit, dim) at `months`, at month `at`.

        The best linear prediction: the line through the visits whose slope is the population's,
        drawn towards the person's own by own · S / (own · S + noise), S the sum of squares of the
        months about their mean. With one visit it starts there.

        Raises
        ------
        ContractError
            If the visits are not in order, or `at` is not after them.
        """
        if np.any(np.diff(months) <= 0):
            raise ContractError("forecast: visits out of order or on one day; give them by months")
        if at <= months[-1]:
            raise ContractError(
                f"forecast: month {at:g} is not after the last visit, of month {months[-1]:g}"
            )
        middle, spread = months.mean(), float(((months - months.mean()) ** 2).sum())
        left = values - months[:, None] * self.rate
        share = 0.0
        extra = np.zeros_like(self.rate)
        if spread > 0:
            prior = self.own * spread
            share = prior / max(prior + self.noise, 1e-30)
            extra = share * ((months - middle) @ left) / spread
        away = at - middle
        mean = left.mean(axis=0) + extra * away + self.rate * at
        slopes = self.own * (1 - share) * away**2
        return Expected(
            mean=mean,
            variance=self.noise * (1 + 1 / len(months)) + slopes,
            own_share=share,
        )

    def draws(self, expected: Expected, count: int, generator: np.random.Generator) -> Floats:
        """Return `count` draws (count, dim) of the next scan's numbers, in pairs about the mean.

        Gaussian with the shape of the fitting people's departures; few people make it wider and
        of longer tails, as Student's t does.
        """
        pairs = -(-count // 2)
        shape = generator.standard_normal((pairs, len(self.departures))) @ self.departures
        freedom = max(self.people - 1, 1)
        stretch = np.sqrt(freedom / generator.chisquare(freedom, size=pairs))
        wider = np.sqrt(expected.variance * (1 + 1 / self.people))
        half = wider * stretch[:, None] * shape
        both = np.stack([half, -half], axis=1).reshape(2 * pairs, -1)
        return np.asarray(expected.mean + both[:count], np.float64)

    def along(self, step: Floats, reader: Floats) -> "Course":
        """Return the course whose rate is a direction's step (dim,), as far as `rate` goes along.

        `reader` (dim,) tells how many steps a change goes. The scatter stays as it is: what the
        direction leaves out is missed by the mean, not by the draws.
        """
        return replace(self, rate=float(self.rate @ reader) * step)

    @property
    def digest(self) -> str:
        """Return the sha256 of its numbers."""
        numbers = [self.noise, self.own, self.people, self.longest_months]
        return digest_of([numbers, self.rate.tolist(), self.departures.tolist()])


def fit_course(values: Floats, months: Floats, people: Sequence[str]) -> Course:
    """Return the course of people seen twice: `values` (scan, dim), `months` and `people` (scan,).

    Scans without months are left out, and people with one visit tell nothing. Every person counts
    once in the scatter; in the rate they count by the spread of their months.

    Raises
    ------
    ContractError
        If nobody has two visits at different months.
    """
    visits = _visits_of(values, months, people)
    if not visits:
        raise ContractError(NOBODY)
    squares, products = 0.0, np.zeros(values.shape[1])
    for own, at in visits:
        away = at - at.mean()
        squares += float(away @ away)
        products += away @ (own - own.mean(axis=0))
    rate = products / squares
    spreads, slopes, rests = [], [], []
    for own, at in visits:
        across, along = _contrasts(at)
        left = own - at[:, None] * rate
        spreads.append(float(((at - at.mean()) ** 2).sum()))
        slopes.append(along @ left)
        rests.append(across @ left)
    spread = np.array(spreads)
    noise, own_slopes = _variances(slopes, rests, spread)
    rows, shares = [], []
    for slope, rest, size in zip(slopes, rests, spread, strict=True):
        rows += [slope / np.sqrt(max(noise + own_slopes * size, 1e-30))]
        rows += list(rest / np.sqrt(max(noise, 1e-30)))
        shares += [1 / (1 + len(rest))] * (1 + len(rest))
    return Course(
        rate=rate,
        noise=noise,
        own=own_slopes,
        departures=np.stack(rows) * np.sqrt(np.array(shares) / len(visits))[:, None],
        people=len(visits),
        longest_months=max(float(np.ptp(at)) for _, at in visits),
    )


def _contrasts(months: Floats) -> tuple[Floats, Floats]:
    """Return orthonormal contrasts of a person's visits that know no level.

    (visit - 2, visit): those that know no slope either; (visit,): the slope alone.
    """
    basis = np.stack([np.ones_like(months), months - months.mean()], axis=1)
    turned: Floats = np.linalg.qr(basis, mode="complete")[0].T
    along: Floats = np.asarray(basis[:, 1] / np.linalg.norm(basis[:, 1]), np.float64)
    return turned[2:], along


def _visits_of(
    values: Floats, months: Floats, people: Sequence[str]
) -> list[tuple[Floats, Floats]]:
    """Return numbers and months of each person with two visits or more, in order.

    Of several scans of one month the first is taken.
    """
    names = np.asarray(people, dtype=str)
    found = []
    for name in np.unique(names):
        rows = np.flatnonzero((names == name) & np.isfinite(months))
        at, first = np.unique(months[rows], return_index=True)
        if len(at) > 1:
            found.append((values[rows[first]].astype(np.float64), at.astype(np.float64)))
    return found


def _variances(
    slopes: Sequence[Floats], rests: Sequence[Floats], spread: Floats
) -> tuple[float, float]:
    """Return the variance of one scan and that of people's own slopes, the most likely ones.

    A person's slope contrast (dim,) has the variance noise + own · spread, each of the others
    (visit - 2, dim) that of noise alone. Where everybody has two visits equally far apart the two
    cannot be told apart, and half the scatter is laid to each.
    """
    along = np.array([float((slope**2).sum()) for slope in slopes])
    across = float(sum((rest**2).sum() for rest in rests))
    free = sum(len(rest) for rest in rests)
    level, typical = float(along.mean()), float(spread.mean())
    if level <= 0:
        return 0.0, 0.0

    def loss(logs: Floats) -> float:
        noise, own = np.exp(logs)
        variance = noise + own * spread / typical
        told = np.log(variance) + along / level / variance
        return float(told.sum() + free * np.log(noise) + across / level / noise)

    best = minimize(loss, np.log([0.5, 0.5]), method="L-BFGS-B", bounds=[(-12.0, 6.0)] * 2).x
    return level * float(np.exp(best[0])), level * float(np.exp(best[1])) / typical
