"""Atrophy of a known amount and place, planted in any head by the phantom's own deformation.

The velocity fields that shrink a phantom's medial temporal lobe or cortex, or widen its ventricles,
live in template space; a head with a known way there can be deformed by them. Radiologists would
call the outcome atrophy; what is real of it is the head.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage

from pipeline.imaging.deformation.growth import volume_factor
from pipeline.imaging.geometry import sample
from pipeline.imaging.header import Affine
from pipeline.phantom.anatomy import CAUSES
from pipeline.phantom.atlas import Atlas
from pipeline.phantom.grid import BRAIN, exponential
from schemas.errors import ParamsError

Volume = Float[np.ndarray, "X Y Z"]


def _brain_affine() -> Affine:
    affine = np.diag([BRAIN.zooms, BRAIN.zooms, BRAIN.zooms, 1.0])
    affine[:3, 3] = BRAIN.origin
    return affine


@dataclass(frozen=True, slots=True)
class PlantedAtrophy:
    """A deformation of template space, forwards and backwards (mm on BRAIN)."""

    amounts: dict[str, float]
    forwards: Float[np.ndarray, "I J K 3"]
    """From where tissue was to where it goes."""
    backwards: Float[np.ndarray, "I J K 3"]

    @classmethod
    def of(cls, amounts: dict[str, float], atlas: Atlas) -> "PlantedAtrophy":
        """Return the atrophy of these causes (`medial_temporal: 1.5`), in the phantom's units.

        Raises
        ------
        ParamsError
            If a cause is none of `anatomy.CAUSES`.
        """
        unknown = [name for name in amounts if name not in CAUSES]
        if unknown:
            raise ParamsError(f"planted: {unknown[0]}; expected of {', '.join(CAUSES)}")
        velocity = torch.zeros_like(next(iter(atlas.velocities.values())))
        for name, amount in amounts.items():
            velocity = velocity + amount * atlas.velocities[name]
        forwards, backwards = (
            exponential(sign * velocity, BRAIN, BRAIN.points()).movedim(0, -1).numpy()
            for sign in (1, -1)
        )
        return cls(amounts, forwards, backwards)

    def plant(self, data: Volume, affine: Affine, native_to_mni: Affine) -> Volume:
        """Return an image (X, Y, Z) with the atrophy, on its own grid and in its intensities.

        `affine` is voxel to native world, `native_to_mni` native world to MNI152 world (mm). Linear
        interpolation where something moves; what does not stays to the last bit.
        """
        voxels = self.shift(native_to_mni @ affine, data.shape)
        still = np.abs(voxels).max(axis=-1) < 1e-3
        place = np.indices(data.shape, dtype=np.float32) + np.moveaxis(voxels, -1, 0)
        warped = ndimage.map_coordinates(data.astype(np.float32), place, order=1, mode="nearest")
        return np.where(still, data, warped).astype(np.float32)

    def shift(self, to_mni: Affine, shape: tuple[int, int, int]) -> Float[np.ndarray, "X Y Z 3"]:
        """Return how far (voxels) from each voxel of a grid lies what the atrophy brings there.

        `to_mni` is voxel to MNI152 world (mm).
        """
        parts = np.moveaxis(self.backwards, -1, 0)
        moved = [sample(np.ascontiguousarray(p), _brain_affine(), to_mni, shape) for p in parts]
        return np.stack(moved, axis=-1) @ np.linalg.inv(to_mni[:3, :3]).T

    def volume_percent(self, affine: Affine, shape: tuple[int, int, int]) -> Volume:
        """Return the true growth of tissue (%) at each voxel of a grid in MNI152, before."""
        growth = 100 * (volume_factor(self.forwards.astype(np.float32), _brain_affine()) - 1)
        return sample(growth.astype(np.float32), _brain_affine(), affine, shape)
