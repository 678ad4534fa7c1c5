"""Coarse regions: a shrunken brain loses tissue where it shrinks."""

import numpy as np

from pipeline.imaging.atlas.parcellation import desikan_killiany
from pipeline.imaging.ventricles import intensity_levels
from pipeline.regions.lobes import LOBES, VENTRICLES, LobeMeter, lobe_shares
from schemas.grid import Grid
from tests.support.shrunken_brain import AFFINE, CENTRE


def grid_of(shape, affine=AFFINE):
    return Grid.model_validate({"shape": shape, "affine": affine.tolist()})


def test_every_region_of_the_atlas_is_in_one_coarse_region():
    members = [name for names in LOBES.values() for name in names]
    assert len(members) == len(set(members))
    assert set(members) == {name.rsplit("_", 1)[0] for name in desikan_killiany().names()}


def test_darker_tissue_is_less_tissue_there_alone(brain):
    meter = LobeMeter(grid_of(brain.shape))
    levels = intensity_levels(brain, meter.affine)
    names, shares = lobe_shares(brain.shape, tuple(map(tuple, AFFINE.tolist())))
    before = meter.measure(brain, levels)
    assert set(before) == {VENTRICLES, *LOBES}
    frontal = shares.toarray()[names.index("frontal")].reshape(brain.shape)
    after = meter.measure(np.where(frontal > 0.5, levels.fluid, brain).astype(np.float32), levels)
    assert after["frontal"] < 0.5 * before["frontal"]
    assert abs(after["occipital"] / before["occipital"] - 1) < 0.01


def test_on_a_grid_without_brain_there_are_no_regions():
    far = np.eye(4)
    far[:3, 3] = CENTRE + 500
    meter = LobeMeter(grid_of((7, 8, 9), far))
    assert set(meter.measure(np.full((7, 8, 9), 0.5, np.float32))) == {VENTRICLES}
