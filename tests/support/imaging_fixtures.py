"""Small synthetic heads, written in any format, sound or broken."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (25, 30, 27)
ZOOMS = 6.0


def head_array(seed: int = 0) -> np.ndarray:
    """Return int16 (25, 30, 27): an asymmetric textured blob on noise; no brain, only a file."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, n) for n in SHAPE]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    head = (x + 0.1) ** 2 / 0.6 + y**2 / 0.8 + (z - 0.1) ** 2 / 0.7 < 1
    values = np.where(head, 600 + 200 * x + 150 * y * z, 0) + rng.uniform(0, 60, SHAPE)
    return values.astype(np.int16)


def head_affine(zooms: float = ZOOMS) -> np.ndarray:
    """Return a RAS affine centred on the volume."""
    affine = np.diag([zooms, zooms, zooms, 1.0])
    affine[:3, 3] = -zooms * (np.asarray(SHAPE) - 1) / 2
    return affine


def save(path: Path, data: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    """Write a NIfTI-1 file: both forms set, or the sform alone for an affine of the caller's."""
    data = head_array() if data is None else data
    own = affine is not None
    image = nib.Nifti1Image(data, None)
    image.set_sform(affine if own else head_affine(), 1)
    image.set_qform(None if own else head_affine(), 0 if own else 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def patch(path: Path, offset: int, content: bytes) -> Path:
    """Overwrite bytes of a NIfTI file, inside the gzip where it is one."""
    zipped = path.suffix == ".gz"
    data = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(bytes(data)) if zipped else bytes(data))
    return path
