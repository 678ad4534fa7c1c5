"""Nearest neighbours: how many, and by which sizes of the features."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor

from pipeline.probes.estimators import LabelledFeatures, knn_head, nearer_count_more
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


@pytest.mark.parametrize("k", [1, 3, 15])
def test_the_first_of_many_neighbours_tell_what_so_few_would(k):
    generator = np.random.default_rng(1)
    known, truth = generator.normal(size=(60, 5)), generator.normal(size=60)
    asked = np.vstack([generator.normal(size=(20, 5)), known[:3]])
    far, which = KNeighborsRegressor(15).fit(known, truth).kneighbors(asked)
    few = KNeighborsRegressor(k, weights="distance").fit(known, truth)
    means = nearer_count_more(far[:, :k], truth[which[:, :k]])
    np.testing.assert_allclose(means, few.predict(asked), atol=1e-12)
