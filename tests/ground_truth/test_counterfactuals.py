"""Scores of counterfactuals: of methods whose place between scan and truth is known."""

import numpy as np
import pandas as pd
import pytest

from pipeline.ground_truth.counterfactuals import NO_CHANGE, score_pair, summarise_pairs
from pipeline.ground_truth.phantom_pairs import TruePair
from pipeline.imaging.atlas.mni152 import grid_affine, load_template, mni_grid
from schemas.grid import GridParams

PARAMS = GridParams(shape=(32, 40, 32), zooms=6.0)


class Perfect:
    """An autoencoder that loses nothing."""

    class autoencoder:  # noqa: N801
        grid = mni_grid(PARAMS)

    def encode(self, volumes):
        return volumes

    def decode(self, z_0):
        return z_0


@pytest.fixture(scope="module")
def pair():
    template, inside = load_template(PARAMS)
    own = (template * inside).astype(np.float32)
    world = np.moveaxis(np.indices(PARAMS.shape), 0, -1) * 6 + grid_affine(PARAMS)[:3, 3]
    x, y, z = np.moveaxis(world, -1, 0)
    wide = (np.abs(np.abs(x) - 12) < 7) & (np.abs(y + 10) < 25) & (np.abs(z - 16) < 9)
    truth = np.where(wide, 0.2 * own, own).astype(np.float32)
    return TruePair(
        subject_id="sub-1", change=0.5, own=own, truth=truth, volume_percent=np.zeros_like(own)
    )


def test_the_truth_itself_has_no_error(pair):
    halfway = (pair.own + pair.truth) / 2
    made = {"ldae": pair.truth, "pca": halfway, NO_CHANGE: pair.own}
    rows = score_pair(Perfect(), pair, made).set_index("method")
    assert rows.loc["ldae", ["mse_brain", "ventricle_error_ml"]].tolist() == [0, 0]
    assert 0 < rows.loc["pca", "mse_brain"] < rows.loc[NO_CHANGE, "mse_brain"]
    assert rows.loc["ldae", "asked_ml"] > 3
    assert rows.loc["ldae", "given_ml"] == rows.loc["ldae", "asked_ml"]
    assert rows.loc[NO_CHANGE, "given_ml"] == 0


def test_figures_are_over_people_and_paired():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "subject_id": f"sub-{person}",
            "change": change,
            "method": method,
            "mse_brain": error * (1 + 0.1 * rng.normal()),
            "ssim_brain": 0.9,
            "ventricle_error_ml": error,
            "region_error_percent": error if change == 0.6 else np.nan,
            "found_most": 2 / 3 if change == 0.6 else np.nan,
            "asked_ml": 10 * change,
            "given_ml": share * 10 * change,
        }
        for person in range(8)
        for change in (0.3, 0.6)
        for method, error, share in (("ldae", 1.0, 0.9), ("pca", 1.5, 0.5), (NO_CHANGE, 2.0, 0.0))
    )
    summary = summarise_pairs(rows)
    assert summary["people"] == 8
    assert summary["methods"]["ldae"]["calibration"]["value"] == pytest.approx(0.9)
    assert summary["methods"][NO_CHANGE]["calibration"]["value"] == 0
    assert summary["methods"]["pca"]["found_most"]["value"] == pytest.approx(2 / 3)
    assert summary["minus"]["pca"]["mse_brain"]["high"] < 0
    assert summary["minus"][NO_CHANGE]["region_error_percent"]["value"] == pytest.approx(-1)
    assert "ldae" not in summary["minus"]
