"""Tissue maps of the ICBM152 template at 1 mm, and its ventricles."""

from pathlib import Path

import nibabel as nib
import nilearn
import numpy as np
from jaxtyping import Float
from scipy import ndimage

Array = Float[np.ndarray, "X Y Z"]
"""On the 1 mm grid of the template, or on any."""

SHAPE = (197, 233, 189)
"""Of the template at 1 mm."""
ORIGIN = (-98.0, -134.0, -72.0)
"""Where its first voxel lies (mm, MNI152)."""

Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and last x, y, z (mm, MNI152)."""
SEARCHED: Bounds = ((-46, 46), (-74, 46), (-16, 40))
"""x, y, z bounds (mm) of what holds the lateral and third ventricles, and some voxels around."""


def slices_of(bounds: Bounds, corner: tuple[float, ...] = ORIGIN) -> tuple[slice, ...]:
    """Return the voxels between bounds, of a grid of 1 mm whose first voxel lies at `corner`."""
    return tuple(
        slice(low - int(start), high - int(start) + 1)
        for (low, high), start in zip(bounds, corner, strict=True)
    )


def template_maps(bounds: Bounds | None = None) -> dict[str, Array]:
    """Return the ICBM152 T1 (0..1), GM and WM fractions and the brain mask inside nilearn.

    Within `bounds` alone, where they are given: of a part not all is read.
    """
    part = (slice(None),) * 3 if bounds is None else slices_of(bounds)
    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    maps = {
        name: np.asarray(
            nib.Nifti1Image.from_filename(
                folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
            ).dataobj[part],
            dtype=np.float32,
        )
        / np.float32(255)
        for name in ("t1", "gm", "wm")
    }
    maps["mask"] = (maps["t1"] > 0).astype(np.float32)
    maps["csf"] = np.clip(maps["mask"] - maps["gm"] - maps["wm"], 0, 1)
    return maps


def ventricle_map(csf: Array, corner: tuple[float, ...] = ORIGIN) -> Array:
    """Return the fluid fraction of the lateral and third ventricles, of the template's csf.

    `corner` is where the first voxel of the csf lies; it holds all of SEARCHED.

    Grown from seeds inside them; the cisterns behind the third ventricle touch them in an
    average template, so they are cut off by position.
    """
    box = slices_of(SEARCHED, corner)
    x, y, z = np.ogrid[tuple(slice(low, high + 1) for low, high in SEARCHED)]
    lateral = (np.abs(x) < 42) & (y > -70) & (y < 42) & (z > -6) & (z < 36)
    cistern = (np.abs(x) < 16) & (y < -26) & (z < 13) | (np.abs(x) < 11) & (y < -36)
    sylvian = (np.abs(x) > 28) & (y > -22)
    third = (np.abs(x) < 5) & (y > -27) & (y < 8) & (z > -12) & (z < 6)
    allowed = (lateral & (z > 1) & ~cistern & ~sylvian) | third
    label, _ = ndimage.label((csf[box] > 0.45) & allowed)
    seeds = [
        tuple(round(p - low) for p, (low, _) in zip(point, SEARCHED, strict=True))
        for point in ((8, 10, 14), (-8, 10, 14), (26, -45, 12), (-26, -45, 12), (0, -10, 0))
    ]
    core = np.isin(label, sorted({int(label[seed]) for seed in seeds} - {0}))
    grown = np.zeros_like(csf)
    grown[box] = csf[box] * ndimage.binary_dilation(core, iterations=2)
    return grown
