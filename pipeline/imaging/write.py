"""Write NIfTI images and transforms, whole or not at all; equal input gives equal bytes."""

import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy.typing as npt
from isal import igzip

from pipeline.imaging.header import Affine
from pipeline.imaging.register import write_affine_transform
from pipeline.runtime.files import write_atomic

SCANNER_CODE, MNI152_CODE = 1, 4
"""NIfTI xform codes of the world that a voxel's millimetres belong to."""


def write_nifti(
    path: Path, volume: npt.NDArray[Any], affine: Affine, *, code: int, made_by: str
) -> None:
    """Write a volume (X, Y, Z) as .nii.gz in its own type, sform and qform alike.

    Readers differ in which of the two they take, so both say the same.
    """
    image = nib.Nifti1Image(volume, None, dtype=volume.dtype)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"ldae-pipeline {made_by}".encode()
    write_atomic(path, igzip.compress(image.to_bytes(), 3, mtime=0))


def write_itk_transform(path: Path, native_to_mni: Affine) -> None:
    """Write an affine (4, 4; native to MNI152 world, RAS, mm) as ITK text.

    As ITK has it, the file maps points of the fixed image (MNI152) to the moving one (native):
    given to `antsApplyTransforms` or nitransforms, it brings the scan onto MNI152.
    """
    with tempfile.TemporaryDirectory(prefix="transform-") as folder:
        text = Path(write_affine_transform(native_to_mni, Path(folder) / "affine.txt"))
        write_atomic(path, text.read_bytes())
