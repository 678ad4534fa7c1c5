"""Scanners of a phantom cohort: how the images of one differ from those of another."""

from dataclasses import dataclass

import numpy as np

from pipeline.runtime.digests import seed_from

CONTRAST_SD = 0.04
"""Spread over scanners of the signal of grey over white matter, which age moves by 0.09."""
NOISE = (1.0, 3.0)
"""Range of a scanner's noise, relative to that of a cohort without scanners."""
BLUR = (0.0, 2.0)
"""Range of the standard deviation (mm) of a scanner's blur; beside the voxel's own."""
GRADIENT_SD = 0.006
"""Spread of the logarithm of the scale of each gradient axis."""


@dataclass(frozen=True)
class ScannerModel:
    """What a scanner does to every image, whoever lies in it."""

    name: str
    """Its value in the column `site`."""
    seed: int
    """Seed of stored orientation, gain, base noise and receive field."""
    contrast: float
    """Added to the signal of grey over white matter."""
    noise: float
    """Factor of the noise's standard deviation."""
    blur: float
    """Standard deviation (mm) of the blur."""
    gradients: tuple[float, float, float]
    """Length in the image of a millimetre along right-left, front-back, up-down."""


def make_scanner(number: int, seed: int) -> ScannerModel:
    """Return scanner `number` (from 1) of a cohort with this seed, however many there are."""
    own = seed_from("phantom scanner model", seed, number)
    rng = np.random.default_rng(own)
    x, y, z = np.exp(rng.normal(0, GRADIENT_SD, size=3)).tolist()
    return ScannerModel(
        name=f"scanner{number}",
        seed=own,
        contrast=float(rng.normal(0, CONTRAST_SD)),
        noise=float(rng.uniform(*NOISE)),
        blur=float(rng.uniform(*BLUR)),
        gradients=(x, y, z),
    )
