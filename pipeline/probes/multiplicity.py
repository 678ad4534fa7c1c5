"""Correct for several targets: one is primary, the p-values of the others are Holm-adjusted."""

from collections.abc import Mapping

from schemas.evaluation import ProbeParams
from schemas.results import PROTOCOLS, TargetResult


def primary_target(params: ProbeParams) -> str | None:
    """Return the target whose p stands as it is: the one named, or the first there is."""
    names = [*params.classification, *params.regression]
    return params.primary if params.primary in names else next(iter(names), None)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values such that below 0.05 at most one in twenty families holds a false one.

    Holm 1979, Scandinavian Journal of Statistics 6: the k-th smallest of m is multiplied by
    m - k + 1, and none is less than one before it.
    """
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = least
    return adjusted


def adjust(targets: Mapping[str, TargetResult], params: ProbeParams) -> None:
    """Set `primary` of each target, and `p_holm` of the permutation test of all others.

    Each protocol is a family of its own.
    """
    primary = primary_target(params)
    for name, target in targets.items():
        target.primary = name == primary
    for protocol in PROTOCOLS:
        tests = {
            name: sizes.permutation
            for name, target in targets.items()
            if name != primary
            and (sizes := target.sizes(protocol)) is not None
            and sizes.permutation is not None
        }
        for name, p in holm({name: test.p for name, test in tests.items()}).items():
            tests[name].p_holm = p
