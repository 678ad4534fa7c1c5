"""What surrounds the phantom's brain: fluid, skull, scalp, face, eyes and neck.

Shapes are signed distances (mm, negative inside) in template space, painted over one another
with edges one millimetre soft. Intensities are relative to white matter (1).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch.nn.functional import interpolate

from pipeline.cohort.phantom.grid import BRAIN_1MM, HEAD, Grid, Maps

Array = Float[np.ndarray, "X Y Z"]

FLUID, BONE, MARROW, FAT, MUSCLE, SKIN, AIR = 0.2, 0.08, 0.72, 1.15, 0.42, 0.5, 0.015


@dataclass
class _Canvas:
    """Two images under the brush: soft tissue and fat, so that a scan can weigh fat by itself."""

    tissue: Array
    fat: Array

    def paint(self, distance: Array, value: float | Array, *, fat: float = 0.0) -> None:
        """Cover the inside of a shape."""
        cover = np.clip(0.5 - distance, 0, 1)
        self.tissue += cover * (value - self.tissue)
        self.fat += cover * (fat - self.fat)


def _ellipsoid(
    grid: Grid,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    *,
    paired: bool = False,
) -> Array:
    """Return the approximate signed distance to an ellipsoid, or to a mirrored pair."""
    x, y, z = grid.axes
    x = np.abs(x) if paired else x
    q = sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True))
    return ((np.sqrt(q) - 1) * min(radii)).astype(np.float32)


def _join(a: Array, b: Array, *, blend: float) -> Array:
    """Return the union of two shapes with its crease rounded over `blend` mm."""
    overlap = np.clip(blend - np.abs(a - b), 0, None) / blend
    return np.minimum(a, b) - overlap * overlap * (blend / 4)


def _texture(shape: tuple[int, ...], sigma: float, seed: int) -> Array:
    """Return smooth noise of zero mean and unit variance; always the same for one seed."""
    coarse = tuple(n // 2 + 1 for n in shape)
    noise = np.random.default_rng(seed).normal(size=coarse).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, sigma / 2)
    return _upsample(noise / noise.std(), shape)


def _upsample(image: Array, shape: tuple[int, ...]) -> Array:
    """Return an image of half the resolution at full resolution (trilinear)."""
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    full = interpolate(tensor, scale_factor=2, mode="trilinear", align_corners=False)[0, 0]
    return full[tuple(slice(n) for n in shape)].numpy()


def _hull_distance(brain: Array) -> Array:
    """Return the signed distance to the brain's smooth envelope on HEAD (mm)."""
    padded = np.pad(brain > 0, ((12, 13), (12, 45), (92, 13)))
    half = padded[::2, ::2, ::2]
    ball = ndimage.distance_transform_edt(~half) < 7
    hull = ndimage.distance_transform_edt(ball) > 7
    soft = ndimage.gaussian_filter(hull.astype(np.float32), 2.0) > 0.5
    signed = ndimage.distance_transform_edt(~soft) - ndimage.distance_transform_edt(soft)
    full = _upsample((2 * signed).astype(np.float32), padded.shape)
    x, y, z = HEAD.shape
    return np.ascontiguousarray(full[12 : 12 + x, 12 : 12 + y, 12 : 12 + z])


def _outline(hull: Array) -> Array:
    """Return the signed distance to the skin."""
    x, y, z = HEAD.axes
    side = 5 * np.exp(-(((y - 12) / 38) ** 2) - ((z + 8) / 34) ** 2) * (np.abs(x) > 30)
    calvarium = hull - (12.5 + side)
    face = _ellipsoid(HEAD, (0, 36, -58), (64, 60, 60))
    jaw = _ellipsoid(HEAD, (0, 48, -98), (47, 46, 36))
    nose = _ellipsoid(HEAD, (0, 97, -58), (14, 17, 20))
    ridge = _ellipsoid(HEAD, (0, 90, -46), (8, 10, 22))
    sway = -30 + 0.12 * (z + 60)
    throat = np.sqrt((x / 54) ** 2 + ((y - sway) / 60) ** 2)
    neck = np.maximum((throat - 1) * 54, z + 48).astype(np.float32)
    body = _join(calvarium, face, blend=22)
    body = _join(body, jaw, blend=18)
    body = _join(body, neck, blend=26)
    body = _join(body, nose, blend=12)
    return _join(body, ridge, blend=10)


def _skull(canvas: _Canvas, hull: Array) -> None:
    """Paint fluid under the skull, its two tables and the marrow between them."""
    x, y, z = HEAD.axes
    rough = _texture(HEAD.shape, 7, 2)
    thin = np.exp(-(((np.abs(x) - 66) / 16) ** 2) - ((z - 2) / 22) ** 2 - ((y + 5) / 45) ** 2)
    outer = 8.2 + 0.5 * rough - 2.6 * thin
    canvas.paint(hull - outer, BONE)
    marrow = np.maximum(hull - (outer - 1.9), 3.6 - hull)
    canvas.paint(marrow + 3 * thin, MARROW * (1 + 0.12 * rough), fat=0.35)
    canvas.paint(hull - 1.9, 0.3)
    canvas.paint(hull - 1.2, FLUID)


def _face(canvas: _Canvas, skin: Array) -> None:
    """Paint the skull base, airways, jaws, tongue and the column of the neck."""
    x, y, z = HEAD.axes
    e = _ellipsoid
    # Maxilla and mandible: cortical bone around marrow.
    arch = np.abs(np.hypot(x / 0.8, y - 42) - 44)
    for level, half, teeth in ((-84, 9, -94), (-112, 10, -100)):
        front = np.maximum(arch - 5, np.maximum(np.abs(z - level) - half, 40 - y))
        canvas.paint(front.astype(np.float32), BONE)
        canvas.paint((front + 2).astype(np.float32), MARROW, fat=0.4)
        crown = np.maximum(arch - 4, np.maximum(np.abs(z - teeth) - 3.5, 48 - y))
        canvas.paint(crown.astype(np.float32), 0.05)
    ramus = np.maximum(np.abs(np.abs(x) - 46 + 0.04 * (z + 60)) - 5, np.abs(y - 18) - 13)
    ramus = np.maximum(ramus, np.abs(z + 84) - 32).astype(np.float32)
    canvas.paint(ramus, BONE)
    canvas.paint(ramus + 2.2, MARROW, fat=0.4)
    canvas.paint(e(HEAD, (0, 46, -96), (24, 34, 14)), 0.5)
    # Skull base: clivus and sphenoid hold marrow, the petrous bone is dense.
    canvas.paint(e(HEAD, (0, 0, -46), (14, 12, 22)), BONE)
    canvas.paint(e(HEAD, (0, 0, -46), (11, 9, 19)), 0.85, fat=0.4)
    canvas.paint(e(HEAD, (38, -22, -50), (20, 13, 9), paired=True), BONE)
    canvas.paint(e(HEAD, (52, -32, -56), (11, 15, 17), paired=True), 0.14)
    # Air: sphenoid, maxillary, ethmoid and frontal sinuses, nose, throat, ear canals.
    canvas.paint(e(HEAD, (8, 22, -36), (8, 12, 10), paired=True), AIR)
    canvas.paint(e(HEAD, (29, 56, -64), (14, 17, 18), paired=True), AIR)
    canvas.paint(e(HEAD, (7, 58, -40), (6, 20, 11), paired=True), 0.16)
    canvas.paint(e(HEAD, (12, 80, -16), (11, 4, 9), paired=True), AIR)
    canvas.paint(e(HEAD, (8, 66, -64), (7, 34, 15), paired=True), AIR)
    for height in (-56, -65, -73):
        canvas.paint(e(HEAD, (9, 58, height), (4.5, 26, 3), paired=True), 0.5)
    canvas.paint(e(HEAD, (0, 12, -84), (11, 9, 30)), AIR)
    windpipe = (np.hypot(x / 9, (y - 8 - 0.1 * (z + 110)) / 8) - 1) * 8
    canvas.paint(np.maximum(windpipe, z + 104).astype(np.float32), AIR)
    canal = np.maximum(np.hypot(y + 20, z + 46) - 3.5, 46 - np.abs(x)).astype(np.float32)
    canvas.paint(np.broadcast_to(canal, HEAD.shape), AIR)
    _eyes(canvas)
    _spine(canvas)
    # The lips part over a dark line.
    canvas.paint(np.maximum(e(HEAD, (0, 90, -92), (20, 16, 1.6)), skin + 1), 0.1)


def _eyes(canvas: _Canvas) -> None:
    """Paint orbits: fat, muscles, optic nerves and the globes with their lenses."""
    e = _ellipsoid
    for centre, radii, value, fat in (
        ((30, 52, -34), (19, 28, 18), BONE, 0.0),
        ((30, 53, -34), (17, 26, 16), FAT, 1.0),
        ((24, 44, -34), (3, 20, 3), 0.62, 0.0),
        ((41, 52, -34), (2, 17, 6), 0.5, 0.0),
        ((20, 52, -34), (2, 17, 6), 0.5, 0.0),
        ((31, 50, -23), (6, 17, 2), 0.5, 0.0),
        ((31, 50, -45), (6, 17, 2), 0.5, 0.0),
        ((32, 64, -34), (12.8, 12.8, 12.8), 0.5, 0.0),
        ((32, 64, -34), (11.6, 11.6, 11.6), 0.17, 0.0),
        ((32, 73, -34), (4.6, 2.2, 4.6), 0.5, 0.0),
    ):
        canvas.paint(e(HEAD, centre, radii, paired=True), value, fat=fat)


def _spine(canvas: _Canvas) -> None:
    """Paint the canal that carries the brainstem on, and the vertebrae before and behind it."""
    x, y, z = HEAD.axes
    centre = -42 + 0.10 * (z + 72)
    below = z + 70
    body = np.maximum(np.maximum(np.abs(x) - 11, np.abs(y - centre - 19) - 8), z + 66)
    canvas.paint(body.astype(np.float32), BONE)
    disc = np.abs((z + 150) % 17 - 8.5) - 6.5
    canvas.paint(np.maximum(body + 1.5, disc).astype(np.float32), MARROW, fat=0.3)
    arch = np.maximum(np.abs(np.hypot(x, (y - centre) * 0.9) - 15) - 3.5, z + 72)
    arch = np.maximum(arch, np.abs((z + 150) % 17 - 8.5) - 5).astype(np.float32)
    canvas.paint(arch, BONE)
    canal = np.maximum(np.hypot(x / 1.15, y - centre) - 10.5, below).astype(np.float32)
    canvas.paint(canal, FLUID)
    cord = np.maximum(np.hypot(x / 1.3, y - centre) - 4.8, z + 68).astype(np.float32)
    canvas.paint(cord, 0.86)


def head_maps(brain: Array) -> Maps:
    """Return (soft tissue, fat) around the brain on HEAD, zero where the brain is.

    `brain` is the template's brain mask on its own 1 mm grid.
    """
    hull = _hull_distance(brain)
    skin = _outline(hull)
    fibres = _texture(HEAD.shape, 2.5, 3)
    depth = 4.8 + 1.6 * _texture(HEAD.shape, 10, 4)
    canvas = _Canvas(np.zeros(HEAD.shape, np.float32), np.zeros(HEAD.shape, np.float32))
    canvas.paint(skin, SKIN)
    canvas.paint(skin + 1.8, 0.0, fat=1.0)
    canvas.paint(skin + depth, MUSCLE * (1 + 0.16 * fibres), fat=0.0)
    # Fat lies between the muscles of face and neck.
    z = HEAD.axes[2]
    planes = np.clip(0.55 - np.abs(_texture(HEAD.shape, 6, 6)) * 3, 0, 1) * (z < -20)
    within = np.clip(-skin - 6, 0, 1)
    canvas.fat += planes * within * (0.8 - canvas.fat)
    _face(canvas, skin)
    for centre, radii in (((84, -24, -34), (5, 14, 20)), ((82, -20, -50), (5, 9, 12))):
        canvas.paint(_ellipsoid(HEAD, centre, radii, paired=True), 0.62, fat=0.2)
    _skull(canvas, np.maximum(hull, -_foramen()))
    i, j, k = (int(b - h) for b, h in zip(BRAIN_1MM.origin, HEAD.origin, strict=True))
    x, y, z0 = BRAIN_1MM.shape
    outside = np.ones(HEAD.shape, np.float32)
    outside[i : i + x, j : j + y, k : k + z0] -= brain
    return torch.from_numpy(np.stack([canvas.tissue * outside, canvas.fat * FAT * outside]))


def _foramen() -> Array:
    """Return the signed distance to the opening of the skull around the spinal cord."""
    x, y, z = HEAD.axes
    opening = np.maximum(np.hypot(x / 1.15, y + 42) - 12.5, z + 60)
    return np.broadcast_to(opening, HEAD.shape).astype(np.float32)
