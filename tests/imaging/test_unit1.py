"""The brain of an MP2RAGE UNIT1 is found in the noise that fills its air."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipeline.imaging.brain import deepbet_mask
from pipeline.phantom.cohort import make_phantom_cohort
from schemas.params import PhantomParams
from tests.support.made_once import MadeOnce

NOISE = 0.04
"""Std of the noise of each inversion, over the signal of tissue in the second."""


def unit1_of(head: np.ndarray) -> np.ndarray:
    """Return the UNIT1 (0 to 4095) that would have a T1w's contrast: noise where no signal is."""
    level = np.clip(head / np.percentile(head[head > np.percentile(head, 70)], 99), 0, 1.2)
    uni = np.clip(0.85 * level - 0.45, -0.49, 0.45)
    uni = np.where(np.abs(uni) < 1e-3, 1e-3, uni)
    signal = np.clip(level / 0.25, 0, 1)
    second = 0.6 * signal + 0.4 * gaussian_filter(signal, 1)
    first = (1 - np.sqrt(1 - 4 * uni**2)) / (2 * uni) * second
    rng = np.random.default_rng(0)
    first, second = (
        image + NOISE * (rng.normal(size=head.shape) + 1j * rng.normal(size=head.shape))
        for image in (first, second)
    )
    made = np.real(np.conj(first) * second) / (np.abs(first) ** 2 + np.abs(second) ** 2)
    return np.rint(4095 * (made + 0.5)).astype(np.float32)


@pytest.mark.slow
def test_noise_in_the_air_of_unit1_leaves_the_brain_mask_as_it_is(made_once: MadeOnce) -> None:
    params = PhantomParams(subjects=1, zooms=2.0, multi_visit_share=0)
    root: Path = made_once(
        "head", lambda folder: make_phantom_cohort(folder / "bids", params, workers=1)
    )
    image = nib.as_closest_canonical(nib.load(next(root.rglob("*_T1w.nii.gz"))))
    head = np.asarray(image.dataobj, dtype=np.float32)
    noisy = unit1_of(head)
    corner = noisy[:8, :8, :8]
    assert corner.std() > 800  # salt and pepper: nearly the whole range of 4095
    clean, found = deepbet_mask(head), deepbet_mask(noisy)
    overlap = 2 * (clean & found).sum() / (clean.sum() + found.sum())
    assert overlap > 0.93, overlap
