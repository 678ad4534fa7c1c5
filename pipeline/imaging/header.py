"""What a header says about the geometry of a scan, checked before any data are read."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt

from schemas.errors import ScanError

Affine = npt.NDArray[np.float64]

ZOOMS_RANGE = (0.3, 6.0)
"""Plausible voxel sizes of a T1-weighted head (mm)."""
FOV_RANGE = (100.0, 500.0)
"""Plausible extent of a T1-weighted head (mm)."""
MAX_SHEAR = 0.2
"""Largest cosine between two axes; beyond, the header is not one of a scanner."""
UNIT_TO_MM = {1: 1000.0, 3: 0.001}
"""NIfTI unit codes other than mm: metre, micrometre."""


@dataclass(frozen=True)
class Geometry:
    """Voxel to world (mm), and what was odd about it."""

    affine: Affine
    notes: tuple[str, ...]


def zooms_of(affine: Affine) -> npt.NDArray[np.float64]:
    """Return the voxel sizes (mm) of a (4, 4) affine."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def affine_fault(affine: Affine) -> str | None:
    """Return what makes an affine unusable, or None."""
    if not np.isfinite(affine).all():
        return "affine with NaN or infinite entries"
    zooms = zooms_of(affine)
    if (zooms < 1e-9).any() or abs(np.linalg.det(affine[:3, :3] / zooms)) < 1e-3:
        return "singular affine"
    low, high = ZOOMS_RANGE
    # Headers hold float32: a bound itself may come out a little beyond it.
    if (zooms < low * 0.999).any() or (zooms > high * 1.001).any():
        return f"voxel size {_mm(zooms)} mm, expected {low:g} to {high:g} mm"
    cosines = (affine[:3, :3] / zooms).T @ (affine[:3, :3] / zooms) - np.eye(3)
    if np.abs(cosines).max() > MAX_SHEAR:
        return "sheared affine (axes not at right angles)"
    return None


def check_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the three spatial sizes of a volume; trailing axes of length one are dropped.

    Raises
    ------
    ScanError
        If the image is not one 3D volume.
    """
    if any(size <= 0 for size in shape):
        raise ScanError(f"dimensions {shape}, expected three positive sizes")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise ScanError(f"{len(shape)}D image of shape {shape}, expected one 3D volume")
    if min(shape) < 8:
        raise ScanError(f"image of shape {shape} is a slice, expected a whole head")
    return shape[0], shape[1], shape[2]


def check_field_of_view(shape: tuple[int, ...], affine: Affine) -> None:
    """Refuse an extent that no head fits.

    Raises
    ------
    ScanError
        If an axis is shorter or longer than FOV_RANGE.
    """
    extent = np.asarray(shape) * zooms_of(affine)
    low, high = FOV_RANGE
    if (extent < low).any() or (extent > high).any():
        raise ScanError(f"field of view {_mm(extent)} mm, expected {low:g} to {high:g} mm an axis")


def nifti_geometry(header: nib.Nifti1Header) -> Geometry:
    """Choose between sform, qform and none; convert units to mm; say what was odd.

    The sform wins where it is usable (as in nibabel), then the qform. Without either code the
    orientation is a guess (voxel axes as left, anterior, superior) and is noted as such.

    Raises
    ------
    ScanError
        If no form gives a usable affine.
    """
    notes: list[str] = []
    sizes = header["pixdim"][1:4]
    if (sizes < 0).any():
        notes.append("negative voxel sizes in the header: taken as positive")
        header["pixdim"][1:4] = np.abs(sizes)
    sform, qform = _form(header, "sform"), _form(header, "qform")
    chosen, fault = None, None
    for name, affine in (("sform", sform), ("qform", qform)):
        if affine is None:
            continue
        affine, unit_note = _to_mm(affine, header)
        problem = affine_fault(affine)
        if problem:
            fault = f"{name}: {problem}"
            notes.append(f"{fault}; ignored")
        elif chosen is None:
            chosen = affine
            notes += unit_note
    if sform is None and qform is None:
        base = header.get_base_affine()
        chosen, unit_note = _to_mm(base, header)
        fault = affine_fault(chosen)
        notes += [*unit_note, "no sform or qform: orientation unknown, taken as LAS"]
        chosen = None if fault else chosen
    if chosen is None:
        raise ScanError(f"{fault}; repair the header")
    if sform is not None and qform is not None and len(notes) == 0:
        notes += _disagreement(sform, qform)
    return Geometry(np.asarray(chosen, dtype=np.float64), tuple(notes))


def _form(header: nib.Nifti1Header, name: str) -> Affine | None:
    """Return the sform or qform where its code is set; NaN where it cannot be computed."""
    if int(header[f"{name}_code"]) <= 0:
        return None
    try:
        affine = header.get_sform() if name == "sform" else header.get_qform()
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, nib.spatialimages.HeaderDataError):
        return np.full((4, 4), np.nan)
    return np.asarray(affine, dtype=np.float64)


def _to_mm(affine: Affine, header: nib.Nifti1Header) -> tuple[Affine, list[str]]:
    """Scale an affine whose unit code is not mm, if that makes the voxel sizes plausible."""
    factor = UNIT_TO_MM.get(int(header["xyzt_units"]) % 8)
    if factor is None or not np.isfinite(affine).all():
        return affine, []
    scaled = affine.copy()
    scaled[:3] *= factor
    unit = "metres" if factor > 1 else "micrometres"
    if affine_fault(scaled) is None:
        return scaled, [f"header in {unit}: converted to mm"]
    return affine, [f"header says {unit}, voxel sizes look like mm: taken as mm"]


def _disagreement(sform: Affine, qform: Affine) -> list[str]:
    """Return a note where two usable forms put the voxels in different places."""
    if affine_fault(sform) or affine_fault(qform):
        return []
    axes = "".join(nib.aff2axcodes(sform)), "".join(nib.aff2axcodes(qform))
    if axes[0] != axes[1]:
        return [f"sform says {axes[0]}, qform says {axes[1]}: sform taken; check left and right"]
    if not np.allclose(zooms_of(sform), zooms_of(qform), rtol=0.05):
        return ["sform and qform give different voxel sizes: sform taken"]
    cosine = np.diag((sform[:3, :3] / zooms_of(sform)).T @ (qform[:3, :3] / zooms_of(qform)))
    if cosine.min() < np.cos(np.deg2rad(10)):
        return ["sform and qform differ by more than 10 degrees: sform taken"]
    return []


def _mm(values: npt.NDArray[np.float64]) -> str:
    return "x".join(f"{value:.3g}" for value in values)
