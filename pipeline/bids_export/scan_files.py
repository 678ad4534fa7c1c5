"""The files of one scan in BIDS-Derivatives: image, masks, transform, sidecars, pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.bids_export.names import SPACE, ScanNames
from pipeline.bids_export.pictures import draw_pictures
from pipeline.imaging.geometry import sample, smooth_for
from pipeline.imaging.header import Affine, zooms_of
from pipeline.imaging.write import MNI152_CODE, SCANNER_CODE, write_itk_transform, write_nifti
from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import write_json
from pipeline.stores.volumes import VolumeRow, open_volumes

EXPORT_VERSION = 1
"""Raised when the content of the files changes; part of every scan's key."""
KEY = "ExportKey"
PREPROCESSED = (
    "Skull-stripped, bias-corrected (where asked for) and resampled once; 0 outside the brain, 1 to"
    " 255 between the percentiles of the brain that preprocessing names."
)
MASK = "Where the preprocessed image is above 0."
NATIVE_MASK = f"The mask of space-{SPACE}, taken back to the scan's own grid by the transform."


@dataclass(frozen=True, slots=True)
class ScanTask:
    """One scan to write, for a worker process."""

    names: ScanNames
    volumes: Path
    """The volume store."""
    row: int
    fingerprint: str
    """Of the scan's source and preprocessing."""
    out: Path
    image: Path | None
    """The scan's own file, for the picture; None where there is none to be read."""
    source: str | None
    """BIDS URI of that file."""
    linear: bool
    """Whether the way to MNI152 is an affine, so that there is a transform to write."""
    preprocessing: Mapping[str, Any]
    qc: Mapping[str, Any] = field(default_factory=dict)
    max_bytes: int = 2_000_000_000

    @property
    def key(self) -> str:
        """Return the digest of all that decides the files."""
        return digest_of([EXPORT_VERSION, self.fingerprint, self.source, dict(self.qc)])

    @property
    def files(self) -> list[Path]:
        """Return the files, relative to the dataset, in the order in which they are written."""
        mni, own = f"space-{SPACE}_desc-brain_mask", "desc-brain_mask"
        transform = f"from-{self.names.suffix}_to-{SPACE}_mode-image_xfm.txt"
        native = [transform, f"{own}.nii.gz", f"{own}.json"]
        endings = [f"{mni}.nii.gz", f"{mni}.json", *(native if self.linear else [])]
        return [*map(self.names.file, endings), self.names.preprocessed, self.names.sidecar]

    def is_written(self) -> bool:
        """Return whether a former call wrote the files of this very scan to the end."""
        try:
            content = json.loads((self.out / self.names.sidecar).read_text())
        except (OSError, ValueError):
            return False
        same = isinstance(content, dict) and content.get(KEY) == self.key
        return same and all((self.out / file).is_file() for file in self.files)


def write_scan(task: ScanTask) -> dict[str, str]:
    """Write the files of one scan, its sidecar last; return its pictures (title → data URI)."""
    store = open_volumes(task.volumes)
    row = store.read_row(task.row)
    affine: Affine = np.asarray(store.attributes.grid.affine, np.float64)
    mask = row.volume > 0
    out, names = task.out, task.names
    sources = {"Sources": [task.source]} if task.source else {}
    _write_mask(out / names.file(f"space-{SPACE}_desc-brain_mask.nii.gz"), mask, affine,
                MNI152_CODE, sources | {"Description": MASK})  # fmt: skip
    native = None
    if task.linear:
        transform = names.file(f"from-{names.suffix}_to-{SPACE}_mode-image_xfm.txt")
        write_itk_transform(out / transform, row.native_to_mni)
        native = native_mask(row, affine)
        _write_mask(out / names.file("desc-brain_mask.nii.gz"), native, row.native_affine,
                    SCANNER_CODE, sources | {"Description": NATIVE_MASK})  # fmt: skip
    write_nifti(out / names.preprocessed, row.volume, affine, code=MNI152_CODE, made_by="preproc")
    sidecar = {
        "Description": PREPROCESSED,
        "SkullStripped": True,
        **sources,
        "NativeIntensityRange": [float(bound) for bound in row.intensity_range],
        "Preprocessing": dict(task.preprocessing),
        "QC": dict(task.qc),
        KEY: task.key,
    }
    write_json(out / names.sidecar, sidecar)
    return draw_pictures(row, affine, native, task.image, task.max_bytes)


def native_mask(row: VolumeRow, affine: Affine) -> npt.NDArray[np.bool_]:
    """Return the brain mask (X, Y, Z) of a scan on its own grid; `affine` is that of the volume."""
    grid = row.native_to_mni @ row.native_affine
    x, y, z = (int(n) for n in row.native_shape)
    inside = (row.volume > 0).astype(np.float32)
    smooth = smooth_for(inside, affine, float(zooms_of(grid).mean()))
    return sample(smooth, affine, grid, (x, y, z)) >= 0.5


def _write_mask(
    path: Path, mask: npt.NDArray[np.bool_], affine: Affine, code: int, facts: dict[str, Any]
) -> None:
    write_nifti(path, mask.astype(np.uint8), affine, code=code, made_by="mask")
    write_json(
        path.with_name(path.name.removesuffix(".nii.gz") + ".json"), {"Type": "Brain"} | facts
    )
