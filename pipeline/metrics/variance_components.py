"""How much of the variance of numbers is the person's, the visit's, the scanner's, the scan's.

Model of a number of a scan: mean + person + visit within person + site + person on site + rest, all
independent. `person on site` is what a scanner does to one person and not to another, at every
visit alike. The rest differs between scans that agree in all of these: noise. Without two scans of
any visit, visit and rest cannot be told apart; without people who were seen twice on one site and
once on another, nor can person on site, which then goes with the rest, and hides as much of visits
that were all on one site.

Estimator: MINQUE (Rao 1971, J. Multivariate Analysis 1), iterated until the estimates are their own
weights, which makes it REML (Searle, Casella and McCulloch 1992, Variance Components, ch. 11); with
balanced scans it is the analysis of variance. Several numbers a scan share their weights, so that
the quadratic forms of all of them are summed. A negative component is taken out and the rest
estimated again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.str_]

REST = "scan"
BOTH = "person_site"
PARTS = ("person", "visit", "site", BOTH, REST)
MOST_STEPS = 100
TOLERANCE = 1e-7
SINGULAR = 1e-6
"""Parts whose patterns of like scans (correlations) have a smaller eigenvalue are one part."""


@dataclass(frozen=True, slots=True)
class VarianceComponents:
    """Variances by their origin."""

    pooled: dict[str, float]
    """Part (of PARTS, those that the scans can tell apart) to its variance, summed over numbers."""
    each: dict[str, Floats]
    """The same for every number (dim,); unbiased, so small ones may be below 0."""

    @property
    def shares(self) -> dict[str, float]:
        """Return each part's share of the sum."""
        total = sum(self.pooled.values())
        return {part: value / total for part, value in self.pooled.items()}


def variance_components(
    values: NDArray[np.floating], *, person: ArrayLike, visit: ArrayLike, site: ArrayLike
) -> VarianceComponents:
    """Return the variance components of numbers (scan, dim), or (scan,), of labelled scans.

    `person`, `visit` (of a person) and `site` (scan,) are names. Parts that these scans cannot
    tell from another are left out: `visit` where no visit has two scans, `site` where there is one,
    `person_site` where nobody changed the site between visits that others spent on one.

    Raises
    ------
    ValueError
        If a value is not finite, all are constant, or nobody was scanned twice.
    """
    y = np.asarray(values, dtype=np.float64)
    y = y.reshape(len(y), -1)
    if not np.isfinite(y).all():
        raise ValueError("variance components: a value is not finite")
    scale = float(np.sqrt(y.var(axis=0).sum()))
    if scale == 0:
        raise ValueError("variance components: all values are constant")
    designs = _designs(np.asarray(person, str), np.asarray(visit, str), np.asarray(site, str))
    while True:
        each = _reml(y / scale, designs)
        pooled = {part: float(values.sum()) for part, values in each.items()}
        lowest = min(pooled, key=lambda part: pooled[part])
        if pooled[lowest] >= 0 or lowest == REST:
            break
        del designs[lowest]
    pooled = {part: max(value, 0.0) * scale**2 for part, value in pooled.items()}
    identified = _designs(np.asarray(person, str), np.asarray(visit, str), np.asarray(site, str))
    zero = np.zeros(y.shape[1])
    return VarianceComponents(
        pooled={part: pooled.get(part, 0.0) for part in (*identified, REST)},
        each={part: each.get(part, zero) * scale**2 for part in (*identified, REST)},
    )


def _designs(person: Labels, visit: Labels, site: Labels) -> dict[str, Floats]:
    """Return indicator columns (scan, level) of the parts that can be told apart."""
    of_visit = np.char.add(np.char.add(person, "\n"), visit)
    on_site = np.char.add(np.char.add(person, "\n"), site)
    levels: dict[str, Labels] = {"person": person, "visit": of_visit, "site": site, BOTH: on_site}
    indicators = {part: _indicators(names) for part, names in levels.items()}
    scans, people = indicators["person"].shape
    if people == scans:
        raise ValueError("variance components: nobody was scanned twice")
    if people < 2:
        raise ValueError("variance components: all scans are of one person")
    visits = indicators["visit"].shape[1]
    if visits in (scans, people):
        del indicators["visit"]
    if indicators["site"].shape[1] < 2:
        del indicators["site"]
    if indicators[BOTH].shape[1] in (scans, people) or not _told_apart(list(indicators.values())):
        del indicators[BOTH]
    return indicators


def _told_apart(columns: list[Floats]) -> bool:
    """Return whether the covariances of parts, beyond the mean, are linearly independent."""
    scans = len(columns[0])
    centred = [z - z.mean(axis=0) for z in (*columns, np.eye(scans))]
    gram = np.array([[np.square(a.T @ b).sum() for b in centred] for a in centred])
    spread = np.sqrt(np.diag(gram))
    return bool(np.linalg.eigvalsh(gram / np.outer(spread, spread))[0] > SINGULAR)


def _indicators(names: Labels) -> Floats:
    known, index = np.unique(names, return_inverse=True)
    return np.eye(len(known))[index]


def _reml(y: Floats, designs: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the components of each number (dim,), of numbers (scan, dim), by iterated MINQUE."""
    parts = (*designs, REST)
    weights = np.full(len(parts), 1 / len(parts))
    for _ in range(MOST_STEPS):
        each = _minque(y, designs, weights)
        # Weights are proportions; a part at 0 keeps a trace, so that it can come back.
        pooled = np.maximum(each.sum(axis=1), 0.0)
        updated = np.maximum(pooled / pooled.sum(), 1e-8)
        done = np.abs(updated - weights).max() < TOLERANCE
        weights = updated
        if done:
            break
    return dict(zip(parts, each, strict=True))


def _minque(y: Floats, designs: Mapping[str, Floats], weights: Floats) -> Floats:
    """Return MINQUE (part, dim) with these a priori components, the rest last."""
    scans = len(y)
    columns = list(designs.values())
    covariance = weights[-1] * np.eye(scans)
    for weight, z in zip(weights[:-1], columns, strict=True):
        covariance += weight * (z @ z.T)
    inverse = np.linalg.inv(covariance)
    row = inverse.sum(axis=0)
    projection = inverse - np.outer(row, row) / row.sum()
    projected = [projection @ z for z in columns] + [projection]
    columns = [*columns, np.eye(scans)]
    system = np.array(
        [[np.square(z.T @ p).sum() for p in projected] for z in columns], dtype=np.float64
    )
    forms = np.stack([np.square(p.T @ y).sum(axis=0) for p in projected])
    # In units of the weights: where repeats are equal, the rest is orders smaller than the person.
    scaled = weights[:, None] * system * weights[None]
    solved: Floats = np.linalg.lstsq(scaled, weights[:, None] * forms, rcond=None)[0]
    return weights[:, None] * solved
