"""Images with one name in several formats: keep one of them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pipeline.imaging.read import check_header
from pipeline.sources.file_kinds import READ, image_format, stem_of
from schemas.errors import ScanError

SAME = 1e-3
"""Affines (mm) and scaled intensities (share of the largest) that differ by less are the same."""


def drop_other_formats(paths: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return one format of each image, and the other formats with the reason.

    Of files with one name in one folder, those with a readable header come first, then NIfTI
    (`.nii.gz` before `.nii`). Two NIfTI that hold different images are both returned, since either
    may be the right one.
    """
    names: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        names[path.with_name(stem_of(path.name))].append(path)
    left: dict[Path, str] = {}
    for same_name in names.values():
        if len(same_name) > 1:
            first, *others = sorted(same_name, key=lambda p: (not _is_readable(p), _order(p)))
            left |= {o: why for o in others if (why := _why_left(o, first))}
    return [path for path in paths if path not in left], list(left.items())


def _order(path: Path) -> int:
    suffix = image_format(path.name)
    return READ.index(suffix) if suffix in READ else len(READ)


def _is_nifti(path: Path) -> bool:
    return (image_format(path.name) or "").startswith(".nii")


def _why_left(other: Path, first: Path) -> str | None:
    if not _is_readable(first) and not _is_readable(other) and _is_nifti(other):
        return None  # neither can be read: each is refused on its own
    if not _is_readable(other):
        return f"{first.name} is taken; this one cannot be read"
    if same_image(first, other):
        return f"the same image as {first.name}, which is taken"
    if _is_nifti(other) and _is_nifti(first):
        return None
    return f"another image than {first.name}, which is taken as NIfTI; rename one if both count"


def _is_readable(path: Path) -> bool:
    try:
        check_header(path)
    except (ScanError, OSError):
        return False
    return True


def same_image(one: Path, other: Path) -> bool:
    """Return whether two files of any format hold the same voxels in the same places."""
    try:
        images: list[Any] = [nib.load(path) for path in (one, other)]
        first, second = (nib.as_closest_canonical(image) for image in images)
        if first.shape != second.shape or not np.allclose(first.affine, second.affine, atol=SAME):
            return False
        values = [np.asarray(image.dataobj, dtype=np.float32) for image in (first, second)]
    except Exception:  # noqa: BLE001 (whatever a reader trips over, they are not known to be alike)
        return False
    return bool(np.abs(values[0] - values[1]).max() <= SAME * max(np.abs(values[0]).max(), 1e-30))
