"""Masked N4 bias-field correction, estimated on a coarse copy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.imaging.ants_setup import ants_image, captured_ants_output, load_ants
from pipeline.imaging.header import Affine, zooms_of

ITERATIONS = 50
"""Most iterations of a level."""
TOLERANCE = 1e-3
COARSER = 2.0
"""How much further apart the samples lie that the wide part of the field is found on."""
WIDE, WIDE_LEVELS = 200.0, 3
"""Distance (mm) of the spline's control points at the first level of the wide part, halved from
level to level, and its levels."""
NARROW, NARROW_LEVELS = 50.0, 2
"""The same of what is left."""
FIELD_RANGE = (0.1, 10.0)
FLOOR = 0.01
"""Share of the mean that zeros inside the mask are lifted to: N4 works on logarithms."""


@dataclass(frozen=True)
class BiasField:
    """A smooth field that multiplies the intensities, kept as a logarithm on coarse samples."""

    log: npt.NDArray[np.float32]
    """(x, y, z)."""
    affine: Affine
    """(4, 4), sample to native world (mm)."""

    def on(self, affine: Affine, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
        """Return the field on a grid (X, Y, Z) of native space; beyond its rim it stays level."""
        to_sample = np.linalg.inv(self.affine) @ affine
        fine = ndimage.affine_transform(
            self.log,
            to_sample[:3, :3],
            to_sample[:3, 3],
            output_shape=shape,
            order=1,
            mode="nearest",
        )
        return np.asarray(np.exp(fine), dtype=np.float32)

    def resampled(self, affine: Affine, shape: tuple[int, int, int]) -> "BiasField":
        """Return the field on other coarse samples (X, Y, Z) of native space."""
        return BiasField(np.log(self.on(affine, shape)), affine)


def correct_bias(
    data: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], affine: Affine, *, step: float
) -> tuple[npt.NDArray[np.float32], BiasField]:
    """Return the data divided by the bias field that N4 finds inside the mask, and the field.

    The field is smooth, so it is estimated on every n-th voxel of each axis, n chosen so that the
    samples lie about `step` (mm) apart, and interpolated back as a logarithm: thick slices are
    not thinned out further, and the cost does not depend on the native voxel size. Its wide part
    is found first, on samples twice as far apart, where an iteration costs an eighth; the finer
    levels start from there. (Tustison et al. 2010.)
    """
    floor = FLOOR * float(data[mask].mean())
    values, inside, at = _samples(data, mask, affine, COARSER * step)
    wide = BiasField(_log_field(np.maximum(values, floor), inside, at, WIDE, WIDE_LEVELS), at)
    values, inside, at = _samples(data, mask, affine, step)
    found = wide.on(at, _shape(values))
    flat = np.maximum(values, floor) / found
    left = _log_field(flat, inside, at, NARROW, NARROW_LEVELS)
    log = left + np.log(found)
    bias = BiasField(log - log[inside].mean(), at)
    return np.asarray(data / bias.on(affine, _shape(data)), dtype=np.float32), bias


def _samples(
    data: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], affine: Affine, step: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], Affine]:
    """Return voxels about `step` (mm) apart, which of them are in the mask, and their affine."""
    strides = np.maximum(1, np.round(step / zooms_of(affine)).astype(int))
    every = tuple(slice(int(n // 2), None, int(n)) for n in strides)
    sample_affine = affine.copy()
    sample_affine[:3, 3] += affine[:3, :3] @ (strides // 2)
    sample_affine[:3, :3] = affine[:3, :3] * strides
    return data[every], mask[every], sample_affine


def _log_field(
    values: npt.NDArray[np.floating],
    inside: npt.NDArray[np.bool_],
    affine: Affine,
    spacing: float,
    levels: int,
) -> npt.NDArray[np.float32]:
    """Return the logarithm of the field that N4 finds in samples (x, y, z)."""
    image = ants_image(np.where(inside, values, 0), affine)
    with captured_ants_output("bias correction"):
        field = load_ants().n4_bias_field_correction(
            image,
            mask=ants_image(inside, affine),
            shrink_factor=1,
            convergence={"iters": [ITERATIONS] * levels, "tol": TOLERANCE},
            spline_param=spacing,
            return_bias_field=True,
        )
    return np.asarray(np.log(np.clip(field.numpy(), *FIELD_RANGE)), dtype=np.float32)


def _shape(data: npt.NDArray[np.float32]) -> tuple[int, int, int]:
    return int(data.shape[0]), int(data.shape[1]), int(data.shape[2])
