"""One DICOM series to one NIfTI image through dcm2niix, with what dcm2niix says about it."""

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
"""What dcm2niix calls images that are no magnitude."""
MAX_WORDS = 3
"""Warnings of dcm2niix that are kept."""
LONGEST = 160


def convert_series(series: Series, folder: Path, converter: str) -> tuple[Path, list[str]]:
    """Return the image of a series, in a folder that is empty before, and notes on it.

    The files are linked under numbers, so that nothing dcm2niix says can hold their names.

    Raises
    ------
    ScanError
        If it makes no whole volume of them, or fills in more than `MAX_FILLED` of the slices.
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
    words = _words(run.stdout + "\n" + run.stderr, series)
    said = f" (dcm2niix: {'; '.join(words)})" if words else ""
    images = sorted(path for path in out.glob("*.nii") if not PARTS.search(path.stem))
    filled = [path for path in images if "_Eq" in path.stem]
    shapes = {path: _shape(path) for path in filled or images}
    volumes = [path for path, shape in shapes.items() if len(shape) == 3]
    if not volumes:
        four = next((shape for shape in shapes.values() if len(shape) == 4), None)
        what = f"{four[3]} volumes in one series" if four else "no image could be made of it"
        raise ScanError(what + said)
    if len(volumes) > 1:
        raise ScanError(f"dcm2niix makes {len(volumes)} volumes of it{said}")
    if filled:
        _check_filled(shapes[volumes[0]], series, said)
    return volumes[0], [f"dcm2niix: {text}" for text in words]


def _check_filled(shape: tuple[int, ...], series: Series, said: str) -> None:
    """Refuse an image whose slices were resampled for another reason than few missing ones."""
    slices = series.slices
    expected = slices.count + slices.missing
    if slices.missing == 0 or expected not in shape:
        raise ScanError(f"slices resampled by dcm2niix to even distances{said}")
    if slices.missing / expected > MAX_FILLED:
        raise ScanError(f"{slices.missing} of {expected} slices are missing{said}")


def _shape(path: Path) -> tuple[int, ...]:
    """Return the shape of a whole volume or of several; () for anything else."""
    try:
        image: Any = nib.load(path)
        shape: tuple[int, ...] = tuple(int(n) for n in image.shape)
        return shape if len(shape) == 4 and shape[3] > 1 else check_shape(shape)
    except (ScanError, OSError, ValueError, nib.filebasedimages.ImageFileError):
        return ()


def _words(output: str, series: Series) -> list[str]:
    """Return what dcm2niix warned of, each once, with the files' own names."""

    def own(match: re.Match[str]) -> str:
        number = int(match[1])
        return series.files[number].name if number < len(series.files) else match[0]

    found: dict[str, Any] = {}
    for line in output.splitlines():
        text = re.match(r"\s*(?:warning|error):?\s*(.+)", line, re.IGNORECASE)
        if text:
            told = re.sub(r"\S*?(\d{6})\.dcm", own, text[1].strip())
            # A semicolon parts the reasons of a scan.
            found.setdefault(told.replace(";", ",")[:LONGEST])
    return list(found)[:MAX_WORDS]
