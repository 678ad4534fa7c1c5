"""Phantoms with large ventricles: the measure of the imaging room finds their true volume."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.ventricles import (
    ventricle_ml,
)
from pipeline.phantom.atlas import Atlas
from pipeline.phantom.grid import BRAIN_1MM, MapGrid, sample
from pipeline.phantom.scanner import make_shape, tissue_signal, true_volumes
from pipeline.phantom.subjects import make_subject, make_visits
from schemas.grid import GridParams
from schemas.params import PhantomParams

GRID = GridParams(shape=(64, 80, 64), zooms=3.0)


@pytest.mark.slow
def test_phantoms_with_large_ventricles_measure_their_true_volume(atlas: Atlas):
    """Phantoms on the grid: their anatomy, their widening, no scanner and no registration."""
    affine = grid_affine(GRID)
    x, y, z = (float(v) for v in affine[:3, 3])
    grid = MapGrid((x, y, z), GRID.zooms, GRID.shape)
    true, measured = [], []
    for number, widening in enumerate((-0.6, 0.5, 1.5, 3.0, 4.2, 5.5), start=1):
        visit = make_visits(make_subject(number, PhantomParams(subjects=6)))[0]
        visit = replace(visit, amplitudes=visit.amplitudes | {"ventricle": widening})
        shape = replace(make_shape(visit, atlas), scales=(1.0, 1.0, 1.0))
        template = shape.to_template(grid.points().float())
        brain = sample(atlas.brain_mask, BRAIN_1MM, template)[0] > 0.5
        signal = tissue_signal(template, visit, atlas, np.random.default_rng(0)) * brain
        measured.append(ventricle_ml(signal.clamp(0, 1).numpy(), affine))
        true.append(true_volumes(visit, shape, atlas)["ventricle_mm3"] / 1000)
    assert max(true) > 85
    assert np.corrcoef(true, measured)[0, 1] > 0.99
    assert 0.9 < np.polyfit(true, measured, 1)[0] < 1.1
