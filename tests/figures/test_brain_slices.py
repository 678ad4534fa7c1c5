"""Slices of brains stand upright."""

import numpy as np

from pipeline.figures.brain_slices import brain_box, middle, plane_slice, slice_sprite
from tests.support.report_study import ellipsoid


def test_slices_stand_upright() -> None:
    volume = np.zeros((7, 8, 9))
    volume[6, 7, 8] = 1  # right, anterior, superior
    for plane, shape in (("axial", (8, 7)), ("coronal", (9, 7)), ("sagittal", (9, 8))):
        index = {"axial": 8, "coronal": 7, "sagittal": 6}[plane]
        image = plane_slice(volume, plane, index)
        assert image.shape == shape
        assert image[0, -1] == 1
    assert middle(volume) == {"axial": 8, "coronal": 7, "sagittal": 6}
    assert brain_box(volume, margin=1) == (slice(5, 7), slice(6, 8), slice(7, 9))


def test_a_sprite_holds_whole_frames() -> None:
    volume = ellipsoid((24, 30, 26))
    sprite = slice_sprite([volume, volume], "coronal", frames=5, panel_pixels=40)
    assert sprite.webp[8:12] == b"WEBP"
    assert sprite.frames == 5
    assert sprite.aspect > 1
