"""Brain anatomy of phantoms: template tissue maps, regions, and the changes of each region.

Each cause of change (disease, age, sex) is a growth rate per unit of its amplitude: a map s of
the local log-volume change, positive in fluid that widens, negative in tissue that shrinks,
zero in total, so the skull stays. Solving Poisson's equation for u with Laplacian s gives the
velocity v = grad u whose divergence is exactly s; its flow is a diffeomorphism.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import fft, ndimage

from pipeline.imaging.atlas.tissue_maps import Array, ventricle_map
from pipeline.phantom.grid import BRAIN, BRAIN_1MM, AnyMaps, Maps, Point, sample
from schemas.manifest import VOLUMES

TISSUES = ("wm", "gm", "csf", "detail", "lesion")
"""Channels of the brain maps, from which intensities are computed."""
CAUSES = ("ventricle", "medial_temporal", "cortex", "age", "sex")
"""Causes of anatomical change, each with its velocity field."""
Coarse = Float[np.ndarray, "I J K"]
"""On BRAIN."""


@dataclass(frozen=True)
class Anatomy:
    """Template maps and velocity fields that all subjects share."""

    tissues: AnyMaps
    """TISSUES on the 1 mm grid of the template."""
    volumes: AnyMaps
    """Fraction of each voxel of BRAIN that belongs to each of VOLUMES."""
    velocities: dict[str, AnyMaps]
    """Velocity (mm a unit amplitude) on BRAIN of each of CAUSES."""
    mask: Float[np.ndarray, "_ _ _"]
    """Brain mask on the 1 mm grid of the template."""


def _bump(
    axes: tuple[np.ndarray, np.ndarray, np.ndarray],
    centre: Point,
    radii: Point,
) -> Array:
    """Return a smooth two-sided bump: 1 at (±centre), falling off over the radii (mm)."""
    mirrored = (np.abs(axes[0]), axes[1], axes[2])
    q = sum(
        ((a - float(c)) / float(r)) ** 2 for a, c, r in zip(mirrored, centre, radii, strict=True)
    )
    bump: Array = np.exp(-(q**1.5)).astype(np.float32)
    return bump


def _at_2mm(maps: dict[str, Array]) -> dict[str, Coarse]:
    """Return 1 mm template maps averaged onto BRAIN."""
    # A filter of even width shifts by half a voxel; averages over 2 mm are centred again here.
    points = BRAIN.points() + 0.5
    coarse = {}
    for name, values in maps.items():
        smooth = torch.from_numpy(ndimage.uniform_filter(values, 2, mode="constant"))
        coarse[name] = sample(smooth[None], BRAIN_1MM, points)[0].numpy()
    return coarse


def _velocity(growth: Coarse, shrink: Coarse) -> Maps:
    """Return v with divergence growth - shrink; shrink is scaled so that the total is zero."""
    rate = growth - shrink * (growth.sum() / shrink.sum())
    rate = ndimage.gaussian_filter(rate, 0.5)
    wave = [2 * (1 - np.cos(np.pi * np.arange(n) / n)) for n in rate.shape]
    laplacian = -(wave[0][:, None, None] + wave[1][None, :, None] + wave[2][None, None, :])
    laplacian[0, 0, 0] = 1
    spectrum = fft.dctn(rate.astype(np.float64), type=2) / laplacian
    spectrum[0, 0, 0] = 0
    potential = fft.idctn(spectrum, type=2) * BRAIN.zooms**2
    velocity = np.stack(np.gradient(potential, BRAIN.zooms))
    # The field is weak at the faces of the box; it must be zero there to be continuous.
    for axis in range(3):
        ramp = np.minimum(np.arange(rate.shape[axis]), np.arange(rate.shape[axis])[::-1]) / 5
        velocity = velocity * np.expand_dims(
            np.clip(ramp, 0, 1), tuple(a for a in range(3) if a != axis)
        )
    return torch.from_numpy(velocity.astype(np.float32))


def _causes(m: dict[str, Coarse]) -> dict[str, AnyMaps]:
    """Return the velocity of each of CAUSES from tissue fractions on BRAIN."""
    axes = BRAIN.axes
    z = axes[2]
    medial_temporal = _bump(axes, (27, -18, -18), (17, 27, 17))
    parietotemporal = np.maximum(
        _bump(axes, (48, -35, -5), (40, 38, 40)), _bump(axes, (25, -58, 40), (45, 30, 35))
    )
    frontal = np.maximum(
        _bump(axes, (30, 42, 20), (45, 36, 50)), _bump(axes, (38, 5, 8), (14, 26, 18))
    )
    vertex = _bump(axes, (0, -15, 70), (60, 50, 30))
    aged = np.maximum(frontal, vertex)
    cerebrum = m["gm"] + m["wm"]
    fluid = np.clip(m["csf"] - m["ventricle"], 0, 1)
    cerebellum = _bump(axes, (22, -65, -38), (42, 30, 24))
    return {
        "ventricle": _velocity(m["ventricle"], cerebrum * (z > -30)),
        "medial_temporal": _velocity(
            (fluid + 0.5 * m["ventricle"]) * medial_temporal, m["gm"] * medial_temporal
        ),
        "cortex": _velocity(fluid * parietotemporal, m["gm"] * parietotemporal),
        "age": _velocity(fluid * aged, m["gm"] * aged),
        "sex": _velocity(cerebrum * cerebellum, cerebrum * _bump(axes, (30, 55, 10), (40, 35, 40))),
    }


def _lesion(maps: dict[str, Array]) -> Array:
    """Return the map of white matter that darkens with age: caps and rims of the ventricles."""
    z = BRAIN_1MM.axes[2]
    distance = ndimage.distance_transform_edt(maps["ventricle"] < 0.5).astype(np.float32)
    noise = np.random.default_rng(5).standard_normal(distance.shape, dtype=np.float32)
    patches = ndimage.gaussian_filter(noise, 4, truncate=2.5)
    patches = (0.8 + 0.4 * patches / patches.std()).astype(np.float32).clip(0, 1.3)
    rim = np.exp(-((distance / 9) ** 2))
    lesion: Array = maps["wm"] * rim * patches * (z > -2)
    return lesion


def load_anatomy(template: dict[str, Array]) -> Anatomy:
    """Return the shared anatomy from `template_maps()`; takes a few seconds."""
    maps = dict(template)
    maps["ventricle"] = ventricle_map(maps["csf"])
    maps["lesion"] = _lesion(maps)
    # Intensities that tissue fractions do not explain: deep nuclei, cerebellum, vessels.
    explained = 0.87 * maps["wm"] + 0.65 * maps["gm"] + 0.25 * maps["csf"]
    maps["detail"] = (maps["t1"] - explained) * maps["mask"]
    coarse = _at_2mm({k: maps[k] for k in ("mask", "gm", "wm", "csf", "ventricle", "lesion")})
    axes = BRAIN.axes
    volumes = {
        "brain_mm3": coarse["mask"],
        "gray_matter_mm3": coarse["gm"],
        "white_matter_mm3": coarse["wm"],
        "ventricle_mm3": coarse["ventricle"],
        "sulcal_csf_mm3": np.clip(coarse["csf"] - coarse["ventricle"], 0, 1),
        "medial_temporal_mm3": coarse["gm"] * _bump(axes, (27, -18, -18), (17, 27, 17)),
        "frontal_gray_mm3": coarse["gm"] * _bump(axes, (30, 42, 20), (45, 36, 50)),
        "lesion_mm3": coarse["lesion"],
    }
    return Anatomy(
        tissues=torch.from_numpy(np.stack([maps[name] for name in TISSUES])),
        volumes=torch.from_numpy(np.stack([volumes[name] for name in VOLUMES])),
        velocities=_causes(coarse),
        mask=maps["mask"],
    )
