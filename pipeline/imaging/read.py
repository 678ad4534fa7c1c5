"""Read one image file safely: the header is judged before data, and no read is unbounded."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip, isal_zlib

from pipeline.imaging.geometry import straighten
from pipeline.imaging.header import (
    SHEAR_TOLERANCE,
    Affine,
    Geometry,
    affine_fault,
    check_shape,
    nifti_geometry,
    shear_of,
    slice_notes,
)
from pipeline.imaging.sanitise_voxels import clean_voxels
from pipeline.runtime.digests import other_half
from schemas.errors import ScanError

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".hdr", ".img")
"""Image files that can be read; `.hdr/.img` pairs go by either name."""
MAX_EXTENSION_BYTES = 64_000_000
"""Largest header with extensions (bytes)."""
IsalError: Any = isal_zlib.error
READ_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    zlib.error,
    IsalError,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True)
class Scan:
    """One image as stored, without shear: voxels, geometry, and notes on what was odd."""

    data: npt.NDArray[np.float32]
    """(X, Y, Z), arbitrary units, finite, 0 is the lowest intensity."""
    affine: Affine
    """(4, 4), voxel to world (mm), axes at right angles."""
    notes: tuple[str, ...]
    """Oddities that were mended or passed over."""


@dataclass(frozen=True)
class _Layout:
    """Position and type of the voxels in a file."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    geometry: Geometry


def read_scan(path: Path, *, max_bytes: int) -> Scan:
    """Return a NIfTI-1/2, MGH/MGZ or Analyze image as finite float32 voxels with its affine.

    A sheared scan is resampled to axes at right angles: ITK has no others, and neither has a qform.

    Raises
    ------
    ScanError
        If the file is missing, empty, damaged, not one 3D volume, too large, or holds no
        plausible intensities. The message names the fault, not the file.
    """
    if not path.is_file():
        raise ScanError("file not found")
    size = path.stat().st_size
    if size == 0:
        raise ScanError("file is empty (0 bytes)")
    layout = _layout(path)
    shape = check_shape(layout.shape)
    voxels = int(np.prod(shape, dtype=np.int64))
    needed = voxels * max(layout.dtype.itemsize, 4)
    if needed > max_bytes:
        raise ScanError(
            f"image of shape {shape} needs {needed:,} bytes, at most {max_bytes:,} are read; "
            "raise preprocess.max_bytes if it is sound"
        )
    raw = _read_voxels(layout, voxels, size).reshape(shape, order="F")
    data, notes = clean_voxels(raw, layout.slope, layout.inter)
    affine, shear = layout.geometry.affine, shear_of(layout.geometry.affine)
    if shear > SHEAR_TOLERANCE:
        data, affine = straighten(data, affine)
        notes.append(f"header sheared by {shear:.2g}: resampled to axes at right angles")
    return Scan(data, affine, (*layout.geometry.notes, *notes))


def check_header(path: Path) -> None:
    """Refuse a file whose header alone says that it is no image, without reading voxels.

    Raises
    ------
    ScanError
        The message names the fault, not the file.
    """
    check_shape(_layout(path).shape)


def image_format(path: Path) -> str | None:
    """Return the suffix that names the format of an image file, or None."""
    name = path.name.lower()
    return next((suffix for suffix in (".nii.gz", *SUFFIXES) if name.endswith(suffix)), None)


def _layout(path: Path) -> _Layout:
    suffix = image_format(path)
    if suffix is None:
        raise ScanError(f"file type {path.suffix or 'without suffix'}, expected one of {SUFFIXES}")
    try:
        return _nifti_layout(path) if suffix in {".nii", ".nii.gz"} else _other_layout(path)
    except ScanError:
        raise
    except PermissionError as error:
        raise ScanError(f"cannot be read ({error.strerror})") from error
    except Exception as error:
        # Whatever a parser trips over is this scan's fault.
        raise ScanError(f"unreadable header: {_first_line(error)}") from error


def _nifti_layout(path: Path) -> _Layout:
    """Parse the header alone; nibabel's loader would read extensions of any claimed size."""
    head = _read_range(path, 0, 544, exact=False)
    if len(head) < 348:
        raise ScanError(f"file holds {len(head)} bytes, too few for a NIfTI header (348)")
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    if 348 in sizes:
        header = nib.Nifti1Header(head[:348], check=False)
    elif 540 in sizes and len(head) >= 540:
        header = nib.Nifti2Header(head[:540], check=False)
    else:
        raise ScanError("not a NIfTI file (header size is neither 348 nor 540)")
    magic = bytes(header["magic"].item())[:3]
    if magic not in {b"n+1", b"n+2"}:
        raise ScanError(f"NIfTI magic is {magic!r}, expected n+1 or n+2 for a single file")
    if not 1 <= int(header["dim"][0]) <= 7:
        raise ScanError(f"header claims {int(header['dim'][0])} dimensions, expected 3")
    shape = tuple(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])])
    dtype = _numeric_dtype(header)
    offset = float(header["vox_offset"])
    if not (np.isfinite(offset) and 0 <= offset <= MAX_EXTENSION_BYTES):
        raise ScanError(f"voxel offset {offset:g} in the header, expected 352 to a few MB")
    check_shape(shape)
    slope, inter = _scaling(float(header["scl_slope"]), float(header["scl_inter"]))
    minimum = 352 if magic == b"n+1" else 544
    return _Layout(
        path, shape, dtype, max(int(offset), minimum), slope, inter, nifti_geometry(header)
    )


def _other_layout(path: Path) -> _Layout:
    """Lay out MGH/MGZ and Analyze or NIfTI pairs through nibabel."""
    partner = other_half(path)
    if partner is not None and not partner.is_file():
        raise ScanError(f"its other half {partner.name} is missing")
    image: Any = nib.load(path)
    proxy, header = image.dataobj, image.header
    check_shape(tuple(int(n) for n in proxy.shape))
    if isinstance(header, nib.Nifti1Header):
        geometry = nifti_geometry(header)
    else:
        fault = affine_fault(np.asarray(image.affine, dtype=np.float64))
        if fault:
            raise ScanError(fault)
        known = isinstance(image, nib.MGHImage) and bool(header["goodRASFlag"])
        notes = () if known else ("no orientation in the header: left and right unknown",)
        affine = np.asarray(image.affine, dtype=np.float64)
        geometry = Geometry(affine, (*notes, *slice_notes(affine)))
    dtype = _numeric_dtype(header)
    slope, inter = _scaling(float(proxy.slope), float(proxy.inter))
    voxel_file = partner if partner and path.suffix.lower() == ".hdr" else path
    shape = tuple(int(n) for n in proxy.shape)
    return _Layout(voxel_file, shape, dtype, int(proxy.offset), slope, inter, geometry)


def _numeric_dtype(header: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except Exception as error:
        raise ScanError("unknown data type code in the header") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        kind = "RGB" if dtype.fields else str(dtype)
        raise ScanError(f"{kind} voxels, expected one real number a voxel")
    return dtype


def _scaling(slope: float, inter: float) -> tuple[float, float]:
    """Return slope and intercept; 0 and NaN mean none, as the NIfTI standard says."""
    if not np.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    return slope, inter if np.isfinite(inter) else 0.0


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        magic = file.read(2) == b"\x1f\x8b"
    named = path.name.lower().endswith((".gz", ".mgz"))
    if named and not magic:
        raise ScanError("named as gzip, but the content is not gzip; if it is an image, rename it")
    if magic and not named:
        raise ScanError("content is gzip, but the name does not end in .gz; rename it")
    return magic


def _read_range(path: Path, offset: int, count: int, *, exact: bool) -> bytes:
    """Read `count` bytes after `offset` of the decompressed file; never more."""
    try:
        stream: IO[bytes] = igzip.open(path, "rb") if _is_gzip(path) else path.open("rb")
        with stream:
            while offset > 0:
                step = len(stream.read(min(offset, 1 << 20)))
                if step == 0:
                    break
                offset -= step
            data = stream.read(count)
            if exact:
                # Reading on to the end makes gzip compare its checksum; bounded, as a file may
                # hold more than its header says.
                stream.read(1 << 20)
    except ScanError:
        raise
    except PermissionError as error:
        raise ScanError(f"cannot be read ({error.strerror})") from error
    except EOFError as error:
        raise ScanError("truncated gzip: the file ends early; copy it again") from error
    except READ_ERRORS as error:
        raise ScanError(f"damaged file: {_first_line(error)}; copy it again") from error
    if exact and len(data) < count:
        raise ScanError(f"truncated: {len(data):,} of {count:,} bytes of voxels; copy it again")
    return data


def _read_voxels(layout: _Layout, voxels: int, size: int) -> npt.NDArray[Any]:
    count = voxels * layout.dtype.itemsize
    if layout.path.suffix.lower() in {".nii", ".img", ".mgh"}:
        size = layout.path.stat().st_size
        if size < layout.offset + count:
            raise ScanError(
                f"truncated: {size:,} bytes, the header promises {layout.offset + count:,}; "
                "copy it again"
            )
    elif size * 1100 < count:
        # Deflate compresses by at most 1032 to 1.
        raise ScanError(f"truncated: {size:,} bytes cannot hold the {count:,} that it claims")
    return np.frombuffer(
        _read_range(layout.path, layout.offset, count, exact=True), dtype=layout.dtype
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
