"""Geometry of a scan from its header, checked before any data are read."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes

from schemas.errors import ScanError

Affine = npt.NDArray[np.float64]

ZOOMS_RANGE = (0.3, 6.0)
"""Plausible voxel sizes of a T1-weighted head (mm)."""
MAX_SLICE = 10.0
"""Thickest slices that are read (mm): one axis may be coarser than ZOOMS_RANGE, with a warning."""
MAX_ODD_ZOOMS = (0.05, 30.0)
"""Voxel sizes (mm) that some image may have; beyond, the header is wrong."""
FOV_RANGE = (100.0, 500.0)
"""Plausible extent of a T1-weighted head (mm)."""
MAX_SHEAR = 0.2
"""Largest cosine between two axes; beyond, the header is not one of a scanner."""
SHEAR_TOLERANCE = 1e-3
"""Cosine between two axes from which a scan is resampled: 0.1 mm at the rim of the brain."""
SAME_SIZE = 0.01
"""Relative difference up to which two voxel sizes are the same but for rounding."""
UNIT_TO_MM = {1: 1000.0, 3: 0.001}
"""NIfTI unit codes other than mm: metre, micrometre."""
UNIT_NAMES = {1: "metres", 3: "micrometres"}


@dataclass(frozen=True)
class Geometry:
    """Affine from voxel to world (mm), and notes on what was odd."""

    affine: Affine
    notes: tuple[str, ...]


def zooms_of(affine: Affine) -> npt.NDArray[np.float64]:
    """Return the voxel sizes (mm) of a (4, 4) affine."""
    return np.asarray(voxel_sizes(affine))


def shear_of(affine: Affine) -> float:
    """Return the largest cosine between two axes of a (4, 4) affine; 0 where all are square."""
    directions = affine[:3, :3] / zooms_of(affine)
    return float(np.abs(directions.T @ directions - np.eye(3)).max())


def affine_fault(affine: Affine) -> str | None:
    """Return what makes an affine unusable and the remedy, or None."""
    if not np.isfinite(affine).all():
        return "affine with NaN or infinite entries; repair the header"
    zooms = zooms_of(affine)
    if (zooms < 1e-9).any() or abs(np.linalg.det(affine[:3, :3] / zooms)) < 1e-3:
        return "singular affine; repair the header"
    fault = _size_fault(zooms)
    if fault is None and shear_of(affine) > MAX_SHEAR:
        return "sheared affine (axes not at right angles); repair the header"
    return fault


def _size_fault(zooms: npt.NDArray[np.float64]) -> str | None:
    low, high = ZOOMS_RANGE
    # Headers hold float32: a bound itself may come out a little beyond it.
    fine, coarse = zooms < low * 0.999, zooms > high * 1.001
    if not fine.any() and (not coarse.any() or _is_one_thick_axis(zooms)):
        return None
    odd_low, odd_high = MAX_ODD_ZOOMS
    sizes = f"voxel size {_mm(zooms)} mm, expected {low:g} to {high:g} mm"
    if (zooms < odd_low).any() or (zooms > odd_high).any():
        return f"{sizes}; repair the header"
    if fine.any():
        return f"{sizes}; resample the scan to 0.5 mm or more, or repair the header if it is wrong"
    return (
        f"{sizes} (slices up to {MAX_SLICE:g} mm); too coarse for a brain volume: take another"
        " T1w of this person, or repair the header if it is wrong"
    )


def _is_one_thick_axis(zooms: npt.NDArray[np.float64]) -> bool:
    """Return whether the voxels are those of thick slices: one axis between the two bounds."""
    high = ZOOMS_RANGE[1] * 1.001
    return int((zooms > high).sum()) == 1 and bool(zooms.max() <= MAX_SLICE * 1.001)


def slice_notes(affine: Affine) -> tuple[str, ...]:
    """Return a note where slices are so thick that little anatomy is left between them."""
    zooms = zooms_of(affine)
    if zooms.max() <= ZOOMS_RANGE[1] * 1.001:
        return ()
    return (f"slices of {zooms.max():.3g} mm: what lies between them is interpolated",)


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

    The sform wins where it is usable (as in nibabel), then the qform. An sform that shears and
    scales the voxels comes from a co-registration of 12 parameters: its millimetres are those of
    another head, so a usable qform is taken instead. Without either code the orientation is a guess
    (voxel axes as left, anterior, superior) and is noted as such.

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
    stored = {name: _form(header, name) for name in ("sform", "qform")}
    forms = {name: _to_mm(affine, header) for name, affine in stored.items() if affine is not None}
    if not forms:
        affine, unit_note = _to_mm(header.get_base_affine(), header)
        fault = affine_fault(affine)
        if fault:
            raise ScanError(fault)
        guess = "no sform or qform: orientation unknown, taken as LAS"
        return _with_notes(affine, [*notes, *unit_note, guess])
    faults = {name: affine_fault(affine) for name, (affine, _) in forms.items()}
    usable = {name: affine for name, (affine, _) in forms.items() if faults[name] is None}
    if not usable:
        name = list(forms)[-1]
        raise ScanError(f"{name}: {faults[name]}")
    notes += [f"{name}: {fault.split(';')[0]}; ignored" for name, fault in faults.items() if fault]
    name = next(iter(usable))
    if len(usable) == 2 and _is_coregistered(usable["sform"], usable["qform"]):
        name = "qform"
        notes.append(
            "sform shears and scales the voxels (a co-registration of 12 parameters?): qform taken"
        )
    notes += forms[name][1]
    if not notes and len(usable) == 2:
        notes += _disagreement(usable["sform"], usable["qform"])
    elif not notes and name == "sform":
        notes += _other_sizes(usable["sform"], header)
    return _with_notes(usable[name], notes)


def _with_notes(affine: Affine, notes: list[str]) -> Geometry:
    return Geometry(np.asarray(affine, dtype=np.float64), (*notes, *slice_notes(affine)))


def _is_coregistered(sform: Affine, qform: Affine) -> bool:
    """Return whether an sform has 12 parameters: sheared, and not in the scan's own millimetres."""
    scaled = not np.allclose(zooms_of(sform), zooms_of(qform), rtol=SAME_SIZE)
    same_hand = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) > 0
    return scaled and bool(same_hand) and shear_of(sform) > SHEAR_TOLERANCE


def _other_sizes(sform: Affine, header: nib.Nifti1Header) -> list[str]:
    """Return a note where a lone sform scales the voxels that pixdim describes."""
    sizes = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    # Sizes of 1 are what writers leave that never set them.
    unset = bool((sizes == 1).all())
    if unset or _size_fault(sizes) or np.allclose(zooms_of(sform), sizes, rtol=0.05):
        return []
    return [
        f"sform gives voxels of {_mm(zooms_of(sform))} mm, pixdim {_mm(sizes)} mm: sform taken;"
        " volumes in ml may be wrong"
    ]


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
    """Scale an affine that is not in mm, if that makes the voxel sizes plausible.

    No voxel of a head in mm has the size of one in metres or micrometres, so a header that names
    another unit, or none, is converted too.
    """
    if not np.isfinite(affine).all():
        return affine, []
    code = int(header["xyzt_units"]) % 8
    codes = [code] if code in UNIT_TO_MM else []
    if affine_fault(affine):
        codes += [other for other in UNIT_TO_MM if other not in codes]
    for unit in codes:
        scaled = affine.copy()
        scaled[:3] *= UNIT_TO_MM[unit]
        if affine_fault(scaled) is None:
            said = "header in" if unit == code else "voxel sizes look like"
            return scaled, [f"{said} {UNIT_NAMES[unit]}: converted to mm"]
    if code in UNIT_TO_MM:
        name = UNIT_NAMES[code]
        return affine, [f"header says {name}, voxel sizes look like mm: taken as mm"]
    return affine, []


def _disagreement(sform: Affine, qform: Affine) -> list[str]:
    """Return a note where two usable forms put the voxels in different places."""
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
