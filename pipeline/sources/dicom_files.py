"""Recognise DICOM files."""

from pathlib import Path

SUFFIXES = (".dcm", ".ima", ".dicom")
DOUBTED_SUFFIXES = (".mr", ".mrdcm", ".dc3", ".dcm30")
"""Suffixes of files that are opened to find out, as are files without a suffix."""
MAGIC_OFFSET = 128
BARE_STARTS = tuple(bytes([8, 0, element, 0]) for element in (0, 1, 5, 8, 18, 20, 22))
"""First bytes of DICOM files without a preamble, as old scanners write them."""


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM: by its name, or by the mark after its preamble."""
    if path.name.startswith(".") or path.name.upper().startswith("DICOMDIR"):
        return False
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix and not suffix[1:].isdigit() and suffix not in DOUBTED_SUFFIXES:
        return False
    try:
        with path.open("rb") as file:
            start = file.read(MAGIC_OFFSET + 4)
            return start[MAGIC_OFFSET:] == b"DICM" or start.startswith(BARE_STARTS)
    except OSError:
        return False
