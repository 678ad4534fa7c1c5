"""The phantom's scanner: true volumes of a visit, and its image with noise, bias and pose."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int16
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.phantom.anatomy import TISSUES
from pipeline.phantom.atlas import Atlas
from pipeline.phantom.grid import (
    BRAIN,
    BRAIN_1MM,
    HEAD,
    AnyMaps,
    MapGrid,
    Points,
    displaced,
    exponential,
    sample,
)
from pipeline.phantom.subjects import Visit
from pipeline.runtime.digests import seed_from
from schemas.manifest import VOLUMES

Affine = Float[np.ndarray, "4 4"]

SHAPE_GRID = MapGrid((-116.0, -152.0, -170.0), 6.0, (40, 51, 51))
"""MapGrid of the individual deformation."""
FIELD_OF_VIEW = (192.0, 248.0, 248.0)
"""Extent of an image (mm), right-left, front-back, up-down."""
CENTRE = (0.0, -6.0, -16.0)
"""Template point at the middle of the field of view (mm)."""
INDIVIDUAL_SD, INDIVIDUAL_SIGMA = 1.2, 20.0
"""Standard deviation (mm, each axis) and smoothness (mm) of the individual deformation."""
FOCAL_CENTRE, FOCAL_RADIUS = (-40.0, -52.0, 38.0), 11.0
"""Place (template, mm) and extent (mm) of the dark spot that some cohorts have."""
CODES = ("RAS", "LAS", "RAS", "LPS", "PSR", "RAS", "LAS", "ASR")
"""Orientations of stored arrays; one is drawn for each scanner."""


@dataclass(frozen=True)
class HeadShape:
    """Maps from points of a person's head to the template."""

    individual: AnyMaps
    """Displacement (mm) of the person's own shape, on SHAPE_GRID."""
    change: AnyMaps
    """Displacement (mm) of age, sex and disease, on `change_grid`."""
    scales: tuple[float, float, float]
    """Size of the head along each axis relative to the template."""
    change_grid: MapGrid = BRAIN

    def to_template(self, points: Points) -> Points:
        """Return the template points of points in the upright head (mm)."""
        points = points / torch.tensor(self.scales)
        return displaced(
            displaced(points, self.individual, SHAPE_GRID), self.change, self.change_grid
        )


def make_shape(visit: Visit, atlas: Atlas, *, every: int = 1) -> HeadShape:
    """Return the head shape of a visit; with its changes on BRAIN at a stride of `every` voxels."""
    subject = visit.subject
    rng = np.random.default_rng(seed_from("phantom shape", subject.seed))
    noise = rng.normal(size=(3, *SHAPE_GRID.shape))
    sigma = INDIVIDUAL_SIGMA / SHAPE_GRID.zooms
    smooth = np.stack([ndimage.gaussian_filter(n, sigma, mode="wrap") for n in noise])
    individual = smooth * (INDIVIDUAL_SD / smooth.std())
    aspect = np.exp(rng.normal(0, 0.012, size=3))
    x, y, z = (subject.size * aspect / aspect.prod() ** (1 / 3)).tolist()
    velocity = sum(
        amplitude * atlas.velocities[name][:, ::every, ::every, ::every]
        for name, amplitude in visit.amplitudes.items()
    )
    assert isinstance(velocity, torch.Tensor)
    x_size, y_size, z_size = velocity.shape[1:]
    grid = MapGrid(BRAIN.origin, every * BRAIN.zooms, (x_size, y_size, z_size))
    return HeadShape(
        individual=torch.from_numpy(individual.astype(np.float32)),
        change=exponential(-velocity, grid, grid.points()),
        scales=(x, y, z),
        change_grid=grid,
    )


def true_volumes(visit: Visit, shape: HeadShape, atlas: Atlas) -> dict[str, float]:
    """Return the visit's true volumes (mm³), before any effect of the scanner."""
    points = BRAIN.points() * torch.tensor(shape.scales)
    fractions = sample(atlas.volumes, BRAIN, shape.to_template(points))
    voxel = BRAIN.zooms**3 * float(np.prod(shape.scales))
    sums = fractions.double().sum((1, 2, 3)) * voxel
    volumes = dict(zip(VOLUMES, sums.tolist(), strict=True))
    volumes["lesion_mm3"] *= visit.lesion
    return volumes


def _pose(rng: np.random.Generator) -> Affine:
    """Return the head's position in the scanner (mm to mm): up to 10 degrees and 6 mm."""
    pose = np.eye(4)
    angles = np.clip(rng.normal(0, (5, 3, 3)), -10, 10)
    pose[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    pose[:3, 3] = rng.uniform(-6, 6, size=3)
    return pose


def _storage(rng: np.random.Generator, zooms: float) -> tuple[Affine, tuple[int, int, int]]:
    """Return affine (voxel to scanner mm) and shape of the stored array."""
    codes = CODES[int(rng.integers(len(CODES)))]
    oblique = rng.normal(0, 4, size=3) if rng.random() < 0.4 else np.zeros(3)
    turn = Rotation.from_euler("xyz", oblique, degrees=True).as_matrix()
    axes = ["RL", "AP", "SI"]
    affine, shape = np.eye(4), [0, 0, 0]
    for column, code in enumerate(codes):
        row = next(i for i, pair in enumerate(axes) if code in pair)
        sign = 1.0 if code in "RAS" else -1.0
        affine[:3, column] = turn[:, row] * sign * zooms
        shape[column] = round(FIELD_OF_VIEW[row] / zooms)
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[:3, 3] = np.array(CENTRE) - middle
    return affine, (shape[0], shape[1], shape[2])


def _bias(points: Points, rng: np.random.Generator) -> Float[torch.Tensor, "I J K"]:
    """Return a smooth multiplicative receive field, with the coil's fall-off at the neck."""
    unit = (points - torch.tensor(CENTRE)) / 120
    x, y, z = unit.unbind(-1)
    terms = (x, y, z, x * x, y * y, z * z, x * y, y * z, x * z)
    weights = rng.normal(0, 0.09, size=len(terms))
    log_field = sum(float(w) * term for w, term in zip(weights, terms, strict=True))
    return torch.exp(log_field - 1.1 * (-z - 0.72).clamp(min=0))


def tissue_signal(
    template: Points, visit: Visit, atlas: Atlas, rng: np.random.Generator
) -> torch.Tensor:
    """Return T1-weighted signal at template points, white matter near 1."""
    tissue = dict(zip(TISSUES, sample(atlas.tissues, BRAIN_1MM, template), strict=True))
    soft, fat = sample(atlas.head, HEAD, template)
    fat_gain, contrast = rng.normal(1, 0.1), rng.normal(0, 0.006)
    white = tissue["wm"] - visit.lesion * tissue["lesion"]
    shift = visit.scanner.contrast if visit.scanner else 0.0
    gray = (visit.gray_white_ratio + contrast + shift) * tissue["gm"]
    brain = white + gray + 0.25 * tissue["csf"] + tissue["detail"]
    signal: torch.Tensor = brain + soft + fat_gain * fat
    if visit.subject.focal:
        q = ((template - torch.tensor(FOCAL_CENTRE)) / FOCAL_RADIUS).square().sum(-1)
        signal = signal * (1 - visit.subject.focal * torch.exp(-(q**1.5)))
    return signal.clamp(min=0)


def scan(
    visit: Visit, shape: HeadShape, atlas: Atlas, *, zooms: float
) -> tuple[Int16[np.ndarray, "X Y Z"], Affine, np.ndarray]:
    """Return image, affine (voxel to mm) and true brain mask of a visit."""
    rng = np.random.default_rng(visit.seed)
    scanner = np.random.default_rng(visit.scanner_seed)
    affine, extent = _storage(scanner, zooms)
    pose = _pose(rng)
    bias_rng, contrast_rng = (np.random.default_rng(s) for s in scanner.integers(2**62, size=2))
    gain = scanner.uniform(350, 1100) * rng.uniform(0.95, 1.05)
    sigma = scanner.uniform(0.012, 0.022)
    weights = bias_rng.bit_generator.state, contrast_rng.bit_generator.state
    clean = np.empty(extent, np.float32)
    mask = np.empty(extent, np.uint8)
    for slab in _slabs(extent[0]):
        bias_rng.bit_generator.state, contrast_rng.bit_generator.state = weights
        indices = (np.arange(slab.start, slab.stop), *map(np.arange, extent[1:]))
        grid = np.stack(np.meshgrid(*indices, indexing="ij"), axis=-1)
        world = grid.astype(np.float32) @ affine[:3, :3].T.astype(np.float32)
        world += affine[:3, 3].astype(np.float32)
        true = world / np.array(visit.scanner.gradients, np.float32) if visit.scanner else world
        upright = (true - pose[:3, 3].astype(np.float32)) @ pose[:3, :3].astype(np.float32)
        template = shape.to_template(torch.from_numpy(upright))
        signal = tissue_signal(template, visit, atlas, contrast_rng)
        clean[slab] = (signal * _bias(torch.from_numpy(world), bias_rng)).numpy()
        mask[slab] = sample(atlas.brain_mask, BRAIN_1MM, template)[0].numpy() > 0.5
    if visit.scanner:
        sigma *= visit.scanner.noise
        clean = ndimage.gaussian_filter(clean, visit.scanner.blur / zooms, truncate=3)
    image = np.empty(extent, np.int16)
    for slab in _slabs(extent[0]):
        real, imaginary = rng.normal(0, sigma, size=(2, *clean[slab].shape)).astype(np.float32)
        noisy = np.hypot(clean[slab] + real, imaginary)
        image[slab] = np.clip(np.rint(noisy * gain), 0, 32767).astype(np.int16)
    return image, affine, mask


def _slabs(extent: int) -> list[slice]:
    """Return slices of at most 32 planes, which bound the memory of a scan."""
    return [slice(start, min(start + 32, extent)) for start in range(0, extent, 32)]
