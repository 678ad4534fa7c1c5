"""Store one head in many ways and see whether the whole chain gives the same result.

python -m benchmarks.studies.storage_variants --head T1w.nii.gz --out disguises.md

Also turns the head by 60 degrees with a header that does not say so.
"""

import argparse
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import from_matvec
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from pipeline.imaging.preprocess_scan import PreprocessedScan, preprocess_scan
from schemas.params import PreprocessParams

SCALING_OFFSET = 112
"""Where scl_slope and scl_inter stand in a NIfTI-1 header."""
Disguise = Callable[[Any, Path], None]


def reordered(image: Any, out: Path, *, axes: str, kind: type = nib.Nifti1Image) -> None:
    """Store with other voxel axes and a header that says so."""
    turn = nib.orientations.axcodes2ornt(tuple(axes))
    now = nib.io_orientation(image.affine)
    moved = image.as_reoriented(nib.orientations.ornt_transform(now, turn))
    nib.save(kind(np.asarray(moved.dataobj), moved.affine), out)


def big_endian(image: Any, out: Path) -> None:
    """Store with the bytes the other way round."""
    header = nib.Nifti1Header(endianness=">")
    data = np.asarray(image.dataobj)
    header.set_data_dtype(np.int16 if data.dtype.kind in "iu" else np.float32)
    nib.save(nib.Nifti1Image(data.astype(header.get_data_dtype()), image.affine, header), out)


def offset(image: Any, out: Path) -> None:
    """Store as float64, stretched and lifted."""
    nib.save(nib.Nifti1Image(image.get_fdata() * 3.7 + 1000, image.affine), out)


def sloped(image: Any, out: Path) -> None:
    """Store as int16 whose true values follow from slope and intercept."""
    data = image.get_fdata()
    slope, inter = float(np.ptp(data)) / 20_000, float(data.min()) - 50
    stored = np.rint((data - inter) / slope - 10_000).astype(np.int16)
    nib.save(nib.Nifti1Image(stored, image.affine), out)
    content = bytearray(out.read_bytes())
    content[SCALING_OFFSET : SCALING_OFFSET + 8] = struct.pack("<2f", slope, inter + 10_000 * slope)
    out.write_bytes(content)


def padded(image: Any, out: Path) -> None:
    """Store with 120 mm of empty space on every side."""
    pad = np.round(120 / np.linalg.norm(image.affine[:3, :3], axis=0)).astype(int)
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ pad
    data = np.pad(np.asarray(image.dataobj), [(n, n) for n in pad])
    nib.save(nib.Nifti1Image(data, affine), out)


def four_dimensional(image: Any, out: Path) -> None:
    """Store as (x, y, z, 1)."""
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine), out)


def turned(image: Any, out: Path, *, degrees: float, in_header: bool) -> None:
    """Resample turned about x and z; with the header saying so, or keeping silent."""
    data, affine = image.get_fdata(dtype=np.float32), image.affine
    turn = Rotation.from_euler("xz", [degrees, degrees / 3], degrees=True).as_matrix()
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    fine = np.minimum(zooms, zooms.min() * 1.4)
    shape = np.ceil(1.2 * np.asarray(data.shape) * zooms / fine).astype(int)
    directions = affine[:3, :3] / zooms
    oblique = from_matvec(turn @ directions * fine, [0, 0, 0])
    middle = affine @ [*(np.asarray(data.shape) - 1) / 2, 1]
    oblique[:3, 3] = middle[:3] - oblique[:3, :3] @ ((shape - 1) / 2)
    to_voxel = np.linalg.inv(affine) @ oblique
    moved = affine_transform(
        data, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=tuple(shape), order=1
    )
    said = (
        oblique if in_header else from_matvec(directions * fine, -directions @ (fine * shape / 2))
    )
    nib.save(nib.Nifti1Image(moved.astype(np.float32), said), out)


DISGUISES: dict[str, Disguise] = {
    "LPS": lambda image, out: reordered(image, out, axes="LPS"),
    "axes permuted (PSR)": lambda image, out: reordered(image, out, axes="PSR"),
    "NIfTI-2": lambda image, out: reordered(image, out, axes="RAS", kind=nib.Nifti2Image),
    "big-endian": big_endian,
    "float64 with an offset": offset,
    "scl_slope and scl_inter": sloped,
    "120 mm of padding": padded,
    "(x, y, z, 1)": four_dimensional,
    "oblique by 25 degrees": lambda image, out: turned(image, out, degrees=25, in_header=True),
    "turned by 60 degrees, header silent": lambda image, out: turned(
        image, out, degrees=60, in_header=False
    ),
}


def agreement(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return r over the voxels that both call brain, and the Dice of their brains."""
    a, b = one > 0, other > 0
    both = a & b
    r = float(np.corrcoef(one[both].astype(float), other[both].astype(float))[0, 1])
    return r, 2 * float(both.sum()) / float(a.sum() + b.sum())


def main() -> None:
    """Preprocess the head and every disguise of it; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=DISGUISES, default=list(DISGUISES))
    arguments = parser.parse_args()
    image, params = nib.load(arguments.head), PreprocessParams()
    truth = preprocess_scan(arguments.head, params)
    lines = ["| stored as | r | Dice | mask | QC | CPU-s |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            path = Path(folder) / "a.nii"
            DISGUISES[name](image, path)
            started = time.process_time()
            scan: PreprocessedScan = preprocess_scan(path, params)
            seconds = time.process_time() - started
            r, dice = agreement(truth.volume, scan.volume)
            lines.append(
                f"| {name} | {r:.3f} | {dice:.3f} | {scan.qc['strip_method']}"
                f" | {scan.qc['status']} | {seconds:.0f} |"
            )
            arguments.out.write_text("\n".join(lines) + "\n")
    print(arguments.out.read_text())


if __name__ == "__main__":
    main()
