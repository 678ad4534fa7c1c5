"""Size of a head and brain, which registration takes out of a latent, kept beside y_sem."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.probes.estimators import LabelledFeatures
from pipeline.probes.linear import LinearProbe, Space, fit_linear, pick_strength, subject_weight
from schemas.evaluation import ProbeParams

Floats = NDArray[np.float64]

SIZE = "size"
BESIDE = "y_sem + size"
NUMBERS = 4
"""Of size."""
WEIGHTS = (1.0, 2.0, 4.0, 8.0)
"""How much louder than a number of y_sem one beside it may be; at 8, four are as loud as 256."""


def log_scales(native_to_mni: Floats) -> Floats:
    """Return by how much registration stretches a head along each axis of the template, as logs.

    `native_to_mni` (4, 4) is stretch times rotation (polar decomposition): how the head lay in the
    scanner does not matter. The three (left–right, back–front, down–up) add up to the logarithm of
    the determinant; a large head has small ones.
    """
    linear = native_to_mni[:3, :3]
    squares, axes = np.linalg.eigh(linear @ linear.T)
    logs: Floats = np.diag(axes * (0.5 * np.log(squares)) @ axes.T).copy()
    return logs


def beside_head(data: LabelledFeatures, params: ProbeParams) -> LinearProbe:
    """Fit a layer on y_sem and size side by side, (scan, dim + 4): the last four are size."""
    return fit_beside(data, params, numbers=NUMBERS)


def fit_beside(data: LabelledFeatures, params: ProbeParams, *, numbers: int) -> LinearProbe:
    """Fit a layer on y_sem and a few numbers beside it, the last columns of (scan, dim + numbers).

    The few are standardised over the fitting scans; y_sem is too, or keeps the spreads of its
    numbers (see `code_head`). The few are weighed by the one of WEIGHTS that, with scale and
    strength, has the best score over inner folds: four numbers among hundreds would hardly be heard
    for a penalty that falls on all alike, and where they tell nothing they are to be quiet.
    """
    x = data.doubles
    each = Space.of(x, subject_weight(data.subjects)).std
    common = each.copy()
    common[:-numbers] = Space.of(x[:, :-numbers], subject_weight(data.subjects), scaled=False).std
    options: dict[str, Any] = {"seed": params.seed, "scaled": False, "folds": params.inner_folds}
    tried = []
    for deviation, weight in product((each, common), WEIGHTS):
        unit = deviation.copy()
        unit[-numbers:] /= weight
        strength, score = pick_strength(x / unit, data.truth, data.subjects, data.kind, **options)
        tried.append((score, strength, unit))
    _, strength, unit = max(tried, key=lambda one: one[0])
    scaled = x / unit
    probe = fit_linear(scaled, data.truth, data.subjects, data.kind, strength=strength, **options)
    return replace(probe, mean=probe.mean * unit, std=probe.std * unit)
