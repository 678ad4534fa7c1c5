"""Volumes as NIfTI files, on the MNI152 grid or back in a scan's native space."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.applications.inputs import InputScan
from pipeline.applications.nifti.native_space import brain_of, overlay, resolution, to_native
from pipeline.imaging.header import zooms_of
from pipeline.imaging.write import MNI152_CODE, SCANNER_CODE, write_nifti

Space = Literal["mni", "native"]
XFORM_CODES = {"mni": MNI152_CODE, "native": SCANNER_CODE}
SPACE_NAMES = {"mni": "MNI152", "native": "native"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeWriter:
    """Writes generated volumes of one scan, or of none, in one space."""

    space: Space
    grid_affine: NDArray[np.float64]
    """(4, 4): voxel of the autoencoder's grid to MNI152 world (mm)."""
    made_by: str
    scan: InputScan | None
    """The scan whose native space and brain mask are used."""

    def write(
        self, path: Path, volume: NDArray[np.float32], *, is_brain: bool = True
    ) -> NDArray[np.float32]:
        """Write one volume (X, Y, Z) in [0, 1]; return it as it was written.

        One that is no brain is a difference of intensities, 0 where nothing differs.
        """
        affine = self.grid_affine
        if self.space == "native":
            assert self.scan is not None
            assert self.scan.native is not None
            known = None if self.scan.volume is None else self.scan.volume > 0
            mask = brain_of(volume, known) if is_brain else np.ones(volume.shape, bool)
            volume = to_native(volume, mask, self.scan.native, affine, difference=not is_brain)
            affine = self.scan.native.native_affine
        code = XFORM_CODES[self.space]
        write_nifti(path, volume, affine, code=code, made_by=f"{self.made_by} (synthetic)")
        return volume

    def correlations(
        self, written: NDArray[np.float32], image: NDArray[np.float32]
    ) -> dict[str, float]:
        """Return the correlations with the scan's file, by voxel and at the grid's resolution.

        `written` and `image` (the file's voxels) are (X, Y, Z) in native space.
        """
        assert self.scan is not None
        assert self.scan.native is not None
        grid_zooms = float(zooms_of(self.grid_affine).mean())
        sigma = resolution(grid_zooms, self.scan.native.native_affine)
        return {
            "correlation_with_file": round(overlay(written, image), 4),
            "correlation_with_file_smoothed": round(overlay(written, image, sigma), 4),
        }

    def intensities(self) -> str:
        """Return the meaning of the written intensities."""
        if self.space == "mni" or self.scan is None or self.scan.native is None:
            return "0 to 1, of the brain's percentiles"
        known = self.scan.native.bias is not None
        return "of the file" if known else "of the file, bias field taken out"
