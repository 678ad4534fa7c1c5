"""Files that are broken in forty ways and more, each with what its refusal tells."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.support.imaging_fixtures import head_affine, head_array, patch, save

DIM, DATATYPE, PIXDIM, VOX_OFFSET, SFORM_ROWS, MAGIC = 40, 70, 76, 108, 280, 344


Breaker = Callable[[Path], Path]


def _bytes(name: str, content: bytes) -> Breaker:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _patched(name: str, offset: int, layout: str, *values: float | bytes) -> Breaker:
    return lambda folder: patch(save(folder / name), offset, struct.pack(layout, *values))


def _data(array: np.ndarray) -> Breaker:
    return lambda folder: save(folder / "a.nii.gz", array)


def _affine(affine: np.ndarray) -> Breaker:
    return lambda folder: save(folder / "a.nii.gz", affine=affine)


def _cut(name: str, share: float) -> Breaker:
    def make(folder: Path) -> Path:
        path = save(folder / name)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        return path

    return make


def _flipped_bit(folder: Path) -> Path:
    path = save(folder / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    return path


def _raw(folder: Path, array: np.ndarray, name: str = "a.nii") -> Path:
    nib.save(nib.Nifti1Image(array, head_affine()), folder / name)
    return folder / name


def _rgb(folder: Path) -> Path:
    dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return _raw(folder, np.zeros(head_array().shape, dtype))


def _unsized_affine(folder: Path) -> Path:
    path = save(folder / "a.nii")
    patch(path, SFORM_ROWS, struct.pack("<12f", *[float("nan")] * 12))
    return patch(path, 252, struct.pack("<h", 0))


def _lonely_hdr(folder: Path) -> Path:
    nib.save(nib.Nifti1Pair(head_array(), head_affine()), folder / "a.img")
    (folder / "a.img").unlink()
    return folder / "a.hdr"


def _short_img(folder: Path) -> Path:
    nib.save(nib.Nifti1Pair(head_array(), head_affine()), folder / "a.img")
    (folder / "a.img").write_bytes((folder / "a.img").read_bytes()[:-100])
    return folder / "a.hdr"


def _short_mgz(folder: Path) -> Path:
    nib.save(nib.MGHImage(head_array().astype(np.float32), head_affine()), folder / "a.mgz")
    content = (folder / "a.mgz").read_bytes()
    (folder / "a.mgz").write_bytes(content[: len(content) // 2])
    return folder / "a.mgz"


def _wrong_suffix(folder: Path) -> Path:
    path = save(folder / "a.nii.gz")
    return path.rename(folder / "a.nii")


def _unzipped(folder: Path) -> Path:
    path = save(folder / "a.nii")
    return path.rename(folder / "a.nii.gz")


def _bomb(folder: Path) -> Path:
    """A megabyte of gzip that claims, and would unpack to, a gigabyte of zeros."""
    path = save(folder / "a.nii")
    patch(path, DIM, struct.pack("<4h", 3, 1000, 1000, 500))
    header = path.read_bytes()[:352]
    with gzip.open(folder / "b.nii.gz", "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(20):
            file.write(bytes(1 << 20))
    return folder / "b.nii.gz"


def _mostly(value: float, share: float) -> np.ndarray:
    array = head_array().astype(np.float32)
    array.reshape(-1)[: int(array.size * share)] = value
    return array


def _one_voxel(value: float) -> np.ndarray:
    array = np.zeros(head_array().shape, np.float32)
    array[5, 6, 7] = value
    return array


def _sheared() -> np.ndarray:
    affine = head_affine()
    affine[:3, :3] = [[4, 2, 0], [2, 4, 0], [0, 0, 4]]
    return affine


def _flat() -> np.ndarray:
    affine = head_affine()
    affine[:3, 2] = affine[:3, 1]
    return affine


FAULTS: dict[str, tuple[Breaker, str]] = {
    "missing": (lambda folder: folder / "none.nii.gz", "not found"),
    "a folder": (lambda folder: folder, "not found"),
    "empty": (_bytes("a.nii.gz", b""), "empty"),
    "empty nii": (_bytes("a.nii", b""), "empty"),
    "text as nii.gz": (_bytes("a.nii.gz", b"hello, world\n" * 100), "not gzip"),
    "text as nii": (_bytes("a.nii", b"hello, world\n" * 100), "not a NIfTI"),
    "html as nii": (_bytes("a.nii", b"<html>404</html>"), "too few"),
    "gzip of text": (_bytes("a.nii.gz", gzip.compress(b"hello" * 200)), "not a NIfTI"),
    "gzip of nothing": (_bytes("a.nii.gz", gzip.compress(b"")), "too few"),
    "gzip magic alone": (_bytes("a.nii.gz", b"\x1f\x8b"), "truncated|damaged|too few"),
    "unknown suffix": (_bytes("a.dcm", b"x" * 1000), "file type"),
    "truncated gzip": (_cut("a.nii.gz", 0.5), "truncated"),
    "gzip without its end": (_cut("a.nii.gz", 0.9995), "truncated"),
    "truncated nii": (_cut("a.nii", 0.7), "truncated"),
    "header alone": (_cut("a.nii", 0.008), "truncated|too few"),
    "flipped bit": (_flipped_bit, "damaged|truncated"),
    "gzip named nii": (_wrong_suffix, "content is gzip"),
    "nii named gzip": (_unzipped, "not gzip"),
    "wrong magic": (_patched("a.nii", MAGIC, "4s", b"abcd"), "magic"),
    "pair magic": (_patched("a.nii", MAGIC, "4s", b"ni1\0"), "magic"),
    "negative dims": (_patched("a.nii", DIM, "<4h", 3, -25, 30, 27), "dimensions"),
    "zero dims": (_patched("a.nii", DIM, "<4h", 3, 25, 0, 27), "dimensions"),
    "nine dims": (_patched("a.nii", DIM, "<h", 9), "dimensions|header"),
    "terabytes": (_patched("a.nii", DIM, "<4h", 3, 32767, 32767, 32767), "max_bytes"),
    "terabytes in gzip": (_patched("a.nii.gz", DIM, "<4h", 3, 9000, 9000, 9000), "max_bytes"),
    "more than it holds": (_patched("a.nii.gz", DIM, "<4h", 3, 250, 250, 250), "truncated"),
    "gzip bomb": (_bomb, "truncated|bytes"),
    "voxel offset": (_patched("a.nii", VOX_OFFSET, "<f", 1e12), "voxel offset"),
    "offset NaN": (_patched("a.nii", VOX_OFFSET, "<f", float("nan")), "voxel offset"),
    "offset past the end": (_patched("a.nii", VOX_OFFSET, "<f", 40000.0), "truncated"),
    "unknown dtype": (_patched("a.nii", DATATYPE, "<h", 12345), "data type"),
    "complex": (lambda f: _raw(f, head_array().astype(np.complex64)), "complex"),
    "RGB": (_rgb, "RGB"),
    "4D": (_data(np.stack([head_array()] * 3, axis=-1)), "4D"),
    "2D": (_data(head_array()[:, :, 0]), "2D"),
    "one slice": (_data(head_array()[:, :, :1]), "slice"),
    "1D": (_data(head_array()[:, 0, 0]), "1D"),
    "NaN affine": (_unsized_affine, "NaN"),
    "singular affine": (_affine(_flat()), "singular|sheared"),
    "zero zooms": (_affine(np.diag([0, 0, 0, 1.0])), "singular"),
    "zooms of a mouse": (_affine(head_affine(0.05)), "voxel size"),
    "zooms of 40 mm": (_affine(head_affine(40.0)), "voxel size"),
    "sheared": (_affine(_sheared()), "sheared"),
    "all zero": (_data(np.zeros(head_array().shape, np.int16)), "every voxel is 0"),
    "constant": (_data(np.full(head_array().shape, 7, np.int16)), "every voxel is 7"),
    "all NaN": (_data(np.full(head_array().shape, np.nan, np.float32)), "NaN"),
    "a third NaN": (_data(_mostly(np.nan, 0.34)), "34% .*NaN"),
    "half infinite": (_data(_mostly(np.inf, 0.5)), "infinite"),
    "one voxel of 1e30": (_data(_one_voxel(1e30)), "only 1 voxels"),
    "a mask": (_data((head_array() > 300).astype(np.uint8)), "label map"),
    "hdr without img": (_lonely_hdr, "missing"),
    "short img": (_short_img, "truncated"),
    "short mgz": (_short_mgz, "truncated|damaged|unreadable"),
}
