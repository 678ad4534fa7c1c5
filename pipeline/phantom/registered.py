"""Phantoms drawn straight on the registered grid: what preprocessing makes of their scans.

Drawing a head, writing it and preprocessing it again costs ten times as much. The transform to the
template is fitted to the head's true shape instead of being estimated from its image, and the bias
correction is that of the template itself, whose tissues are not quite flat.
"""

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy import ndimage
from torch import Tensor

from pipeline.imaging.bias import correct_bias
from pipeline.imaging.geometry import crop_affine
from pipeline.imaging.intensities import scale_intensities
from pipeline.phantom.atlas import Atlas, build_atlas
from pipeline.phantom.grid import BRAIN, BRAIN_1MM, Points, sample
from pipeline.phantom.scanner import Affine, HeadShape, make_shape, tissue_signal
from pipeline.phantom.subjects import Visit, make_subject, make_visits
from pipeline.runtime.digests import seed_from
from schemas.grid import Grid
from schemas.params import PhantomParams

BLUR_ZOOMS = 3.8
"""Voxel size (mm) of `build_atlas` at which a registered phantom is as sharp as one of 2 mm voxels
that was resampled onto 3 mm."""
NOISE = (0.0037, 0.0068)
"""Range of the noise's standard deviation, white matter 1: that of 2 mm voxels after resampling."""
RIM_SIGMA, RIM_SHARE = 2.0, 0.42
"""Blur (mm) of the true mask and the share from which a voxel counts as brain: masks of deep
networks lie outside the true one."""
BIAS_STEP = 6.0
"""Distance (mm) of the samples of the bias correction."""
CHANGE_EVERY = 2
"""Every how manyth point of BRAIN changes of anatomy are computed at: they are smooth."""
MARGIN = 12.0
"""Distance (mm) from the template's brain beyond which no registered brain reaches."""
EVERY = 4
"""Every how manyth point of BRAIN along an axis the transform is fitted to."""


class RegisteredPhantoms:
    """Draws phantoms on a grid of template space.

    Parameters
    ----------
    grid
        Shape and affine (voxel to template mm) of the volumes.
    percentiles
        Of the brain, that become 1 and 255.
    blur_zooms
        Voxel size (mm) whose average a voxel is: sharpness, whatever the grid.
    """

    def __init__(
        self,
        grid: Grid,
        percentiles: tuple[float, float] = (0.5, 99.5),
        *,
        blur_zooms: float = BLUR_ZOOMS,
    ) -> None:
        self.percentiles = percentiles
        self.affine = np.asarray(grid.affine, dtype=np.float64)
        axes = [torch.arange(n, dtype=torch.float32) for n in grid.shape]
        voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        atlas = build_atlas(zooms=blur_zooms)
        mask = ndimage.gaussian_filter(atlas.brain_mask[0].numpy(), RIM_SIGMA)
        self.atlas = replace(atlas, brain_mask=torch.from_numpy(mask)[None])
        world = _apply(self.affine, voxels)
        inside = self._inside(world)
        around = ndimage.binary_dilation(inside, iterations=round(MARGIN / min(grid.zooms)))
        self.box = ndimage.find_objects(around.astype(np.uint8))[0]
        self.shape, self.zooms = grid.shape, min(grid.zooms)
        self.world = world[self.box]

    def draw(self, visit: Visit, template: Points | None = None) -> UInt8[np.ndarray, "X Y Z"]:
        """Return a visit's brain: 0 outside, 1 to 255 inside.

        `template` are its `template_points`, where they are at hand.
        """
        rng = np.random.default_rng(seed_from("registered phantom", visit.seed))
        scanner = np.random.default_rng(visit.scanner_seed)
        if template is None:
            template = self.template_points(visit)
        signal = tissue_signal(template, visit, self.atlas, rng).numpy() / self._flatness
        sigma = scanner.uniform(*NOISE)
        if visit.scanner:
            sigma *= visit.scanner.noise
            signal = ndimage.gaussian_filter(signal, visit.scanner.blur / self.zooms, truncate=3)
        real, imaginary = rng.normal(0, sigma, size=(2, *signal.shape)).astype(np.float32)
        levels, _ = scale_intensities(
            np.hypot(signal + real, imaginary), self._inside(template), self.percentiles
        )
        volume = np.zeros(self.shape, np.uint8)
        volume[self.box] = levels
        return volume

    def template_points(self, visit: Visit) -> Points:
        """Return which point of the template (mm) lies at each voxel of `box` of a visit's brain.

        Two visits of one person hold the same tissue where these points are the same.
        """
        shape = make_shape(visit, self.atlas, every=CHANGE_EVERY)
        upright = _apply(np.linalg.inv(template_transform(shape, self.atlas)), self.world)
        return shape.to_template(upright)

    def _inside(self, template: Points) -> np.ndarray:
        return sample(self.atlas.brain_mask, BRAIN_1MM, template)[0].numpy() > RIM_SHARE

    @cached_property
    def _flatness(self) -> Float[np.ndarray, "X Y Z"]:
        """The smooth field that bias correction finds in the template itself, inside the box."""
        visit = make_visits(make_subject(1, PhantomParams()))[0]
        signal = tissue_signal(self.world, visit, self.atlas, np.random.default_rng(0)).numpy()
        inside = self._inside(self.world)
        affine = crop_affine(self.affine, self.box)
        flat, _ = correct_bias(signal, inside, affine, step=BIAS_STEP)
        field = np.divide(signal, flat, out=np.ones_like(signal), where=inside & (flat > 0))
        # Heads differ from the template at the rim: there the field goes on smoothly.
        weight = inside.astype(np.float32)
        near = ndimage.gaussian_filter(weight, 2)
        smooth = ndimage.gaussian_filter(field * weight, 2) / np.maximum(near, 1e-3)
        return np.where(inside, field, np.where(near > 1e-3, smooth, 1)).astype(np.float32)


def template_transform(shape: HeadShape, atlas: Atlas) -> Affine:
    """Return the affine (upright head to template, mm) that fits a head's true shape best.

    Least squares over the points of the brain.
    """
    brain = atlas.volumes[0, ::EVERY, ::EVERY, ::EVERY] > 0.5
    points = BRAIN.points()[::EVERY, ::EVERY, ::EVERY] * torch.tensor(shape.scales)
    there = shape.to_template(points)[brain].double().numpy()
    here = np.c_[points[brain].double().numpy(), np.ones(len(there))]
    affine = np.eye(4)
    affine[:3] = np.linalg.lstsq(here, there, rcond=None)[0].T
    return affine


def _apply(affine: Affine, points: Points) -> Float[Tensor, "I J K 3"]:
    turn = torch.from_numpy(affine[:3, :3].T.astype(np.float32))
    return points @ turn + torch.from_numpy(affine[:3, 3].astype(np.float32))
