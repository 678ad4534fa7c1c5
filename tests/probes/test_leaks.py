"""What a probe must never see."""

import numpy as np
import pytest
import torch

from pipeline.probes.linear import C_GRID, fit_linear
from pipeline.probes.protocols import fit_probes
from pipeline.probes.supervised_encoder import SupervisedHead
from tests.support.probe_cohort import PARAMS, QUICK, assert_same_fit, cohort


@pytest.mark.slow
def test_no_fitted_number_depends_on_the_test_subjects() -> None:
    features, table = cohort()
    results = fit_probes(features, table, QUICK)
    test = (table.split == "test").to_numpy()
    shuffled = table.copy()
    for column in ("diagnosis", "age_years", "sex", "ventricle_ml"):
        shuffled.loc[test, column] = np.roll(shuffled.loc[test, column].to_numpy(), 5)
    assert_same_fit(results, fit_probes(features, shuffled, QUICK))
    moved = {name: values + 1000 * test[:, None] for name, values in features.items()}
    assert_same_fit(results, fit_probes(moved, table, QUICK))
    kept = ~test
    without = {name: values[kept] for name, values in features.items()}
    assert_same_fit(results, fit_probes(without, table[kept], QUICK))


@pytest.mark.slow
def test_sex_is_not_a_covariate_of_sex() -> None:
    features, table = cohort()
    params = PARAMS.model_copy(update={"classification": {"sex": ("F", "M")}, "regression": ()})
    results = fit_probes(features, table, params)
    assert results.fits["sex"]["age_sex"].coef.shape == (1,)


def test_strength_is_picked_inside_the_fitting_rows() -> None:
    generator = np.random.default_rng(0)
    subjects = np.arange(60)
    truth = (subjects % 2).astype(float)
    noise = generator.normal(size=(60, 40))
    weak = fit_linear(noise, truth, subjects, "classification", folds=5, seed=0)
    assert weak.strength is not None
    assert weak.strength <= C_GRID[1]
    clear = fit_linear(
        truth[:, None] + 0.1 * noise, truth, subjects, "classification", folds=5, seed=0
    )
    assert clear.strength is not None
    assert clear.strength > weak.strength


def test_a_label_that_the_split_gives_away_is_named() -> None:
    features, table = cohort(12)
    label = np.where(table.split == "test", "AD", "CN")
    results = fit_probes(features, table.assign(diagnosis=label), QUICK)
    assert "the split gives the label away" in results.skipped["diagnosis"]
    assert "test: AD" in results.skipped["diagnosis"]


@pytest.mark.slow
def test_no_head_sees_the_test_subjects() -> None:
    """As for the linear probe: neighbours, perceptron and an encoder trained on labels."""
    features, table = cohort(18)
    params = QUICK.model_copy(update={"heads": ("knn", "mlp"), "supervised_steps": 3})
    config = {"in_channels": 1, "grid": (4, 4, 4), "channels": (4, 8), "dim": 6, "num_heads": 2}
    z_0 = np.random.default_rng(0).normal(size=(36, 64)).astype(np.float32)
    heads = {"supervised": SupervisedHead(config, torch.device("cpu"))}
    sets = {"y_sem": features["y_sem"], "supervised": z_0}
    results = fit_probes(sets, table, params, heads=heads)
    test = (table.split == "test").to_numpy()
    shuffled = table.copy()
    for column in ("diagnosis", "age_years"):
        shuffled.loc[test, column] = np.roll(shuffled.loc[test, column].to_numpy(), 3)
    moved = {name: values + np.float32(9) * test[:, None] for name, values in sets.items()}
    assert_same_fit(results, fit_probes(moved, shuffled, params, heads=heads))
