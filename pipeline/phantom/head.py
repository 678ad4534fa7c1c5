"""The head around the phantom's brain: fluid, skull, scalp, face, eyes and neck.

Shapes are signed distances (mm, negative inside) in template space, painted over one another
with edges one millimetre soft. Intensities are relative to white matter (1).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch.nn.functional import interpolate

from pipeline.phantom.grid import BRAIN_1MM, HEAD, Maps, Point

Array = Float[np.ndarray, "X Y Z"]
Template = Float[np.ndarray, "I J K"]
Box = tuple[slice, slice, slice]
_ALL: Box = (slice(None), slice(None), slice(None))

FLUID, BONE, MARROW, FAT, MUSCLE, SKIN, AIR = 0.2, 0.08, 0.72, 1.15, 0.42, 0.5, 0.015


def _axes(box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the open coordinate axes (mm) of a box of HEAD."""
    x, y, z = HEAD.axes
    return x[box[0]], y[:, box[1]], z[:, :, box[2]]


def _box(low: Point, high: Point) -> Box:
    """Return the box of HEAD between two corners (mm)."""
    i, j, k = (
        slice(max(int(float(a) - o), 0), int(float(b) - o) + 1)
        for a, b, o in zip(low, high, HEAD.origin, strict=True)
    )
    return i, j, k


@dataclass
class _Canvas:
    """Images of soft tissue and of fat, painted shape by shape; a scan weighs fat by itself."""

    tissue: Array
    fat: Array

    def paint(
        self, distance: Array, value: float | Array, *, fat: float = 0.0, box: Box = _ALL
    ) -> None:
        """Cover the inside of a shape, given within a box of HEAD."""
        self._cover(box, distance.astype(np.float32, copy=False), value, fat)

    def ellipsoid(
        self,
        centre: Point,
        radii: Point,
        value: float | Array,
        *,
        fat: float = 0.0,
        inside: Array | None = None,
    ) -> None:
        """Cover an ellipsoid and its mirror image, cut off where `inside` is positive."""
        for side in (1, -1) if float(centre[0]) else (1,):
            middle = (side * float(centre[0]), centre[1], centre[2])
            low = [float(c) - float(r) - 2 for c, r in zip(middle, radii, strict=True)]
            high = [float(c) + float(r) + 2 for c, r in zip(middle, radii, strict=True)]
            box = _box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
            distance = _ellipsoid(middle, radii, box)
            if inside is not None:
                distance = np.maximum(distance, inside[box])
            self._cover(box, distance, value[box] if isinstance(value, np.ndarray) else value, fat)

    def _cover(self, box: Box, distance: Array, value: float | Array, fat: float) -> None:
        cover = np.clip(0.5 - distance, 0, 1)
        self.tissue[box] += cover * (value - self.tissue[box])
        self.fat[box] += cover * (fat - self.fat[box])


def _ellipsoid(centre: Point, radii: Point, box: Box = _ALL) -> Array:
    """Return the approximate signed distance to an ellipsoid within a box of HEAD."""
    axes = _axes(box)
    q = sum(((a - float(c)) / float(r)) ** 2 for a, c, r in zip(axes, centre, radii, strict=True))
    return ((np.sqrt(q) - 1) * min(map(float, radii))).astype(np.float32)


def _join(a: Array, b: Array, *, blend: float) -> Array:
    """Return the union of two shapes with its crease rounded over `blend` mm."""
    overlap = np.clip(blend - np.abs(a - b), 0, None) / blend
    union: Array = np.minimum(a, b) - overlap * overlap * (blend / 4)
    return union


def _texture(shape: tuple[int, ...], sigma: float, seed: int) -> Array:
    """Return smooth noise of zero mean and unit variance; always the same for one seed."""
    coarse = tuple(n // 2 + 1 for n in shape)
    noise = np.random.default_rng(seed).normal(size=coarse).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, sigma / 2)
    return _upsample(noise / noise.std(), shape)


def _upsample(image: Template, shape: tuple[int, ...]) -> Array:
    """Return an image of half the resolution at full resolution (trilinear)."""
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    full = interpolate(tensor, scale_factor=2, mode="trilinear", align_corners=False)[0, 0]
    return full[tuple(slice(n) for n in shape)].numpy()


def _hull_distance(brain: Template) -> Array:
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
    calvarium = hull - (13.0 + side)
    face = _ellipsoid((0, 36, -58), (64, 60, 60))
    jaw = _ellipsoid((0, 42, -94), (60, 50, 38))
    nose = _ellipsoid((0, 97, -58), (14, 17, 20))
    ridge = _ellipsoid((0, 90, -46), (8, 10, 22))
    sway = -30 + 0.12 * (z + 60)
    throat = np.sqrt((x / 54) ** 2 + ((y - sway) / 60) ** 2)
    neck = np.maximum((throat - 1) * 54, z + 48).astype(np.float32)
    body = _join(calvarium, face, blend=22.0)
    body = _join(body, jaw, blend=18.0)
    body = _join(body, neck, blend=26.0)
    body = _join(body, nose, blend=12.0)
    return _join(body, ridge, blend=10.0)


def _flesh(canvas: _Canvas, skin: Array) -> None:
    """Paint skin, the fat below it, and muscle with fat between the muscles."""
    canvas.paint(skin, SKIN)
    canvas.paint(skin + 1.8, 0.0, fat=1.0)
    depth = 4.8 + 1.6 * _texture(HEAD.shape, 10.0, 4)
    fibres = _texture(HEAD.shape, 2.5, 3)
    canvas.paint(skin + depth, MUSCLE * (1 + 0.16 * fibres), fat=0.0)
    del depth, fibres
    z = HEAD.axes[2]
    planes = np.clip(0.6 - np.abs(_texture(HEAD.shape, 9.0, 6)) * 4, 0, 0.5) * (z < -20)
    planes *= np.clip(-skin - 6, 0, 1)
    canvas.fat += planes * (0.7 - canvas.fat)


def _skull(canvas: _Canvas, hull: Array) -> None:
    """Paint fluid under the skull, its two tables and the marrow between them."""
    x, y, z = HEAD.axes
    rough = _texture(HEAD.shape, 7.0, 2)
    thin = np.exp(-(((np.abs(x) - 66) / 16) ** 2) - ((z - 2) / 22) ** 2 - ((y + 5) / 45) ** 2)
    outer = 7.8 + 0.6 * rough - 2.6 * thin + 1.5 * np.exp(-(((y + 95) / 25) ** 2))
    canvas.paint(hull - outer, BONE)
    marrow = np.maximum(hull - (outer - 2.0), 4.0 - hull)
    canvas.paint(marrow + 3 * thin, MARROW * (0.8 + 0.2 * rough), fat=0.12)
    canvas.paint(hull - 1.9, 0.3)
    canvas.paint(hull - 1.2, FLUID)


def _face(canvas: _Canvas, skin: Array) -> None:
    """Paint the skull base, airways, jaws, tongue and the column of the neck."""
    ellipsoid = canvas.ellipsoid
    mottle = _texture(HEAD.shape, 3.5, 7)
    _jaws(canvas, mottle)
    # The chewing muscles around its branch, and the parotid gland behind.
    ellipsoid((54, 24, -82), (7, 19, 29), 0.45, inside=skin + 4)
    ellipsoid((34, 20, -76), (6, 16, 22), 0.45)
    ellipsoid((52, -2, -78), (9, 10, 20), 0.68, fat=0.1, inside=skin + 4)
    ellipsoid((44, 20, -86), (6.5, 15, 34), BONE)
    ellipsoid((44, 20, -86), (4.3, 12.8, 31.8), 0.55 * (1 + 0.2 * mottle), fat=0.2)
    ellipsoid((0, 44, -97), (24, 32, 15), 0.5 * (1 + 0.15 * mottle), fat=0.06)
    # Skull base: clivus and sphenoid hold marrow, the petrous bone is dense.
    ellipsoid((0, 0, -46), (14, 12, 22), BONE)
    ellipsoid((0, 0, -46), (10, 8, 18), 0.6 * (1 + 0.15 * mottle), fat=0.15)
    ellipsoid((38, -22, -50), (20, 13, 9), BONE)
    ellipsoid((52, -32, -56), (11, 15, 17), 0.14)
    # Air: sphenoid, maxillary, ethmoid and frontal sinuses, nose, throat, ear canals.
    ellipsoid((8, 22, -36), (8, 12, 10), AIR)
    ellipsoid((29, 56, -64), (14, 17, 18), AIR)
    ellipsoid((7, 58, -40), (6, 20, 11), 0.16)
    ellipsoid((12, 80, -16), (11, 4, 9), AIR)
    ellipsoid((8, 66, -64), (7, 34, 15), AIR)
    for height in (-56, -65, -73):
        ellipsoid((9, 58, height), (4.5, 26, 3), 0.5)
    ellipsoid((0, 12, -84), (11, 9, 30), AIR)
    box = _box((-12, -12, HEAD.origin[2]), (12, 24, -100))
    x, y, z = _axes(box)
    windpipe = (np.hypot(x / 9, (y - 8 - 0.1 * (z + 110)) / 8) - 1) * 8
    canvas.paint(np.maximum(windpipe, z + 104), AIR, box=box)
    box = _box((-98, -26, -51), (98, -18, -43))
    x, y, z = _axes(box)
    canvas.paint(np.maximum(np.hypot(y + 22, z + 47) - 2, 52 - np.abs(x)), AIR, box=box)
    _eyes(canvas)
    _spine(canvas)


def _eyes(canvas: _Canvas) -> None:
    """Paint orbits: fat, muscles, optic nerves and the globes with their lenses."""
    for centre, radii, value, fat in (
        ((30, 52, -34), (19, 28, 18), BONE, 0.0),
        ((30, 53, -34), (17, 26, 16), 0.0, 0.85),
        ((24, 44, -34), (3, 20, 3), 0.62, 0.0),
        ((41, 52, -34), (2, 17, 6), 0.5, 0.0),
        ((20, 52, -34), (2, 17, 6), 0.5, 0.0),
        ((31, 50, -23), (6, 17, 2), 0.5, 0.0),
        ((31, 50, -45), (6, 17, 2), 0.5, 0.0),
        ((32, 64, -34), (12.8, 12.8, 12.8), 0.5, 0.0),
        ((32, 64, -34), (11.6, 11.6, 11.6), 0.17, 0.0),
        ((32, 73, -34), (4.6, 2.2, 4.6), 0.5, 0.0),
    ):
        canvas.ellipsoid(centre, radii, value, fat=fat)


def _jaws(canvas: _Canvas, mottle: Array) -> None:
    """Paint maxilla and mandible, cortical bone around marrow, and the teeth between them."""
    box = _box((-50, 30, -124), (50, 90, -70))
    x, y, z = _axes(box)
    marrow = 0.55 * (1 + 0.2 * mottle[box])
    arch = np.abs(np.hypot(x / 0.8, y - 40) - 40)
    gaps = 2.6 - np.abs((np.arctan2(x, y - 40) * 40) % 8 - 4)
    for level, half, teeth in ((-83, 8, -93), (-111, 9, -100)):
        height = np.sqrt(((z - level) / half) ** 2 + (arch / 6) ** 2)
        bone = _join((height - 1) * 6, np.maximum(arch - 4, np.abs(z - teeth) - 3), blend=4.0)
        bone = np.maximum(bone, 34 - y)
        canvas.paint(bone, BONE, box=box)
        canvas.paint(np.maximum(bone + 2.5, 34 - y), marrow, fat=0.2, box=box)
        crown = np.maximum(np.maximum(arch - 3, np.abs(z - teeth) - 3.5), 40 - y)
        canvas.paint(crown, 0.2, box=box)
        canvas.paint(np.maximum(crown, -gaps), 0.06, box=box)


def _spine(canvas: _Canvas) -> None:
    """Paint the spinal canal with its cord, and the vertebrae before and behind it."""
    box = _box((-26, -80, HEAD.origin[2]), (26, 0, -60))
    x, y, z = _axes(box)
    centre = -42 + 0.10 * (z + 72)
    rung = np.abs((z + 150) % 17 - 8.5)
    body = np.maximum(np.maximum(np.abs(x) - 11, np.abs(y - centre - 19) - 8), z + 66)
    canvas.paint(body, BONE, box=box)
    canvas.paint(np.maximum(body + 1.5, rung - 6.5), 0.6, fat=0.1, box=box)
    arch = np.maximum(np.abs(np.hypot(x, (y - centre) * 0.9) - 15) - 3.5, z + 72)
    canvas.paint(np.maximum(arch, rung - 5), BONE, box=box)
    canvas.paint(np.maximum(arch + 1.8, rung - 3.2), 0.5, fat=0.1, box=box)
    canal = np.maximum(np.hypot(x / 1.15, y - centre) - 10.5, z + 70)
    canvas.paint(canal, FLUID, box=box)
    cord = np.maximum(np.hypot(x / 1.3, y - centre) - 4.8, z + 68)
    canvas.paint(cord, 0.86, box=box)


def head_maps(brain: Template) -> Maps:
    """Return (soft tissue, fat) around the brain on HEAD, zero where the brain is.

    `brain` is the template's brain mask on its own 1 mm grid.
    """
    hull = _hull_distance(brain)
    skin = _outline(hull)
    canvas = _Canvas(np.zeros(HEAD.shape, np.float32), np.zeros(HEAD.shape, np.float32))
    _flesh(canvas, skin)
    _face(canvas, skin)
    del skin
    for centre, radii in (((80, -24, -34), (6, 14, 20)), ((77, -20, -50), (6, 9, 12))):
        canvas.ellipsoid(centre, radii, 0.62, fat=0.2)
    _skull(canvas, np.maximum(hull, -_foramen()))
    i, j, k = (int(b - h) for b, h in zip(BRAIN_1MM.origin, HEAD.origin, strict=True))
    x, y, z0 = BRAIN_1MM.shape
    outside = np.ones(HEAD.shape, np.float32)
    outside[i : i + x, j : j + y, k : k + z0] -= brain
    canvas.tissue *= outside
    canvas.fat *= FAT
    canvas.fat *= outside
    return torch.from_numpy(np.stack([canvas.tissue, canvas.fat]))


def _foramen() -> Array:
    """Return the signed distance to the opening of the skull around the spinal cord."""
    x, y, z = HEAD.axes
    opening = np.maximum(np.hypot(x / 1.15, y + 42) - 12.5, z + 60)
    return np.broadcast_to(opening, HEAD.shape).astype(np.float32)
