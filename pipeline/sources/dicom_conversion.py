"""Convert one DICOM series to one NIfTI image through dcm2niix, and keep its warnings."""

import re
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib

from pipeline.imaging.header import check_shape
from pipeline.sources.dicom_headers import Series
from pipeline.sources.dicom_series import MAX_FILLED
from schemas.errors import ScanError

TIMEOUT = 1800.0
"""Longest conversion of one series (s)."""
OPTIONS = ("-b", "n", "-z", "n", "-d", "0", "-f", "image")
"""No sidecar, no compression, this folder alone."""
PARTS = re.compile(r"_(?:ph|real|imaginary|ADC|Tilt|MoCo)(?:_|[a-z]?\d*$|$)")
"""Suffixes that dcm2niix gives to images that are no magnitude."""
MAX_WARNINGS = 3
"""Warnings of dcm2niix that are kept."""
LONGEST = 160


def convert_series(series: Series, folder: Path, converter: str) -> tuple[Path, list[str]]:
    """Return the image of a series, written to an empty folder, and notes on it.

    The files are linked under numbers, so that no output of dcm2niix can hold their names.

    Raises
    ------
    ScanError
        If dcm2niix makes no whole volume, or fills in more than `MAX_FILLED` of the slices.
    """
    source, out = folder / "in", folder / "out"
    source.mkdir()
    out.mkdir()
    for number, path in enumerate(series.files):
        (source / f"{number:06d}.dcm").symlink_to(path.absolute())
    command = [converter, *OPTIONS, "-o", str(out), str(source)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, errors="replace",
                             timeout=TIMEOUT, check=False)  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ScanError(f"dcm2niix took longer than {TIMEOUT:.0f} s") from error
    warnings = _warnings(run.stdout + "\n" + run.stderr, series)
    remark = f" (dcm2niix: {'; '.join(warnings)})" if warnings else ""
    images = sorted(path for path in out.glob("*.nii") if not PARTS.search(path.stem))
    filled = [path for path in images if "_Eq" in path.stem]
    shapes = {path: _shape(path) for path in filled or images}
    volumes = [path for path, shape in shapes.items() if len(shape) == 3]
    if not volumes:
        series_shape = next((shape for shape in shapes.values() if len(shape) == 4), None)
        fault = "no image could be made of it"
        if series_shape is not None:
            fault = f"{series_shape[3]} volumes in one series"
        raise ScanError(fault + remark)
    if len(volumes) > 1:
        raise ScanError(f"dcm2niix makes {len(volumes)} volumes of it{remark}")
    if filled:
        _check_filled(shapes[volumes[0]], series, remark)
    return volumes[0], [f"dcm2niix: {text}" for text in warnings]


def _check_filled(shape: tuple[int, ...], series: Series, remark: str) -> None:
    """Refuse an image whose slices were resampled for more than a few missing ones."""
    slices = series.slices
    expected = slices.count + slices.missing
    if slices.missing == 0 or expected not in shape:
        raise ScanError(f"slices resampled by dcm2niix to even distances{remark}")
    if slices.missing / expected > MAX_FILLED:
        raise ScanError(f"{slices.missing} of {expected} slices are missing{remark}")


def _shape(path: Path) -> tuple[int, ...]:
    """Return the shape of a whole volume or of several; () for anything else."""
    try:
        image: Any = nib.load(path)
        shape: tuple[int, ...] = tuple(int(n) for n in image.shape)
        return shape if len(shape) == 4 and shape[3] > 1 else check_shape(shape)
    except (ScanError, OSError, ValueError, nib.filebasedimages.ImageFileError):
        return ()


def _warnings(output: str, series: Series) -> list[str]:
    """Return the warnings of dcm2niix, each once, with the names of the original files."""

    def original_name(match: re.Match[str]) -> str:
        number = int(match[1])
        return series.files[number].name if number < len(series.files) else match[0]

    warnings: dict[str, Any] = {}
    for line in output.splitlines():
        text = re.match(r"\s*(?:warning|error):?\s*(.+)", line, re.IGNORECASE)
        if text:
            warning = re.sub(r"\S*?(\d{6})\.dcm", original_name, text[1].strip())
            # A semicolon parts the reasons of a scan.
            warnings.setdefault(warning.replace(";", ",")[:LONGEST])
    return list(warnings)[:MAX_WARNINGS]
