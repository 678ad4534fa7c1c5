"""Masked N4 bias-field correction, estimated on a coarse copy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.imaging.ants_setup import ants_image, captured_ants_output, load_ants
from pipeline.imaging.header import Affine, zooms_of

ITERATIONS = (50, 50, 50, 50)
TOLERANCE = 1e-3
FIELD_RANGE = (0.1, 10.0)


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
        return self._between(to_sample[:3, :3], to_sample[:3, 3], shape)

    def resampled(self, affine: Affine, shape: tuple[int, int, int]) -> "BiasField":
        """Return the field on other coarse samples (X, Y, Z) of native space."""
        return BiasField(np.log(self.on(affine, shape)), affine)

    def _between(
        self,
        matrix: npt.NDArray[np.float64],
        offset: npt.NDArray[np.float64],
        shape: tuple[int, ...],
    ) -> npt.NDArray[np.float32]:
        fine = ndimage.affine_transform(
            self.log, matrix, offset, output_shape=shape, order=1, mode="nearest"
        )
        return np.asarray(np.exp(fine), dtype=np.float32)


def correct_bias(
    data: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], affine: Affine, *, step: float
) -> tuple[npt.NDArray[np.float32], BiasField]:
    """Return the data divided by the bias field that N4 finds inside the mask, and the field.

    The field is smooth, so it is estimated on every n-th voxel of each axis, n chosen so that the
    samples lie about `step` (mm) apart, and interpolated back as a logarithm: thick slices are
    not thinned out further, and the cost does not depend on the native voxel size.
    (Tustison et al. 2010.)
    """
    strides = np.maximum(1, np.round(step / zooms_of(affine)).astype(int))
    coarse = tuple(slice(int(n // 2), None, int(n)) for n in strides)
    coarse_affine = affine.copy()
    coarse_affine[:3, 3] += affine[:3, :3] @ (strides // 2)
    coarse_affine[:3, :3] = affine[:3, :3] * strides
    # N4 works on logarithms: zeros inside the mask are lifted to a small share of the mean.
    floor = 0.01 * float(data[mask].mean())
    inside = mask[coarse]
    values = np.where(inside, np.maximum(data[coarse], floor), 0)
    image, mask_image = ants_image(values, coarse_affine), ants_image(inside, coarse_affine)
    with captured_ants_output("bias correction"):
        field = load_ants().n4_bias_field_correction(
            image,
            mask=mask_image,
            shrink_factor=1,
            convergence={"iters": list(ITERATIONS), "tol": TOLERANCE},
            return_bias_field=True,
        )
    log_field = np.log(np.clip(field.numpy(), *FIELD_RANGE)).astype(np.float32)
    log_field -= log_field[inside].mean()
    bias = BiasField(log_field, coarse_affine)
    fine = bias._between(np.diag(1 / strides), -(strides // 2) / strides, data.shape)
    return np.asarray(data / fine, dtype=np.float32), bias
