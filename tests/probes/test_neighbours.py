"""Nearest neighbours: how many, and by which sizes of the features."""

import numpy as np
import pytest

from pipeline.probes.estimators import LabelledFeatures, knn_head
from schemas.evaluation import ProbeParams


@pytest.mark.parametrize("loud", ["the label's feature", "another feature"])
def test_inner_folds_pick_the_sizes_in_which_neighbours_are_near(loud):
    generator = np.random.default_rng(0)
    truth = generator.normal(size=90)
    if loud == "the label's feature":  # many faint numbers are noise, as the last modes are
        features = np.hstack([truth[:, None], 0.02 * generator.normal(size=(90, 60))])
    else:
        features = np.column_stack([0.02 * truth, generator.normal(size=90)])
    people = np.arange(90).astype(str)
    fit, new = np.arange(60), np.arange(60, 90)
    data = LabelledFeatures(features, truth, people, "regression")
    probe = knn_head(data.take(fit), ProbeParams(inner_folds=3))
    error = np.abs(probe.score(features[new]) - truth[new]).mean()
    assert error < 0.5 * np.abs(truth[new] - np.median(truth[fit])).mean()
