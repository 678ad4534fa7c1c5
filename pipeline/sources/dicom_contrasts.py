"""Which contrast other than T1w a DICOM series has: by name, ImageType or timing."""

import re

from pipeline.sources.dicom_headers import Series

T1 = re.compile(r"(?<![a-z0-9])t1(?![0-9])|mp-?2?-?rage")
"""Names of T1w that may hold a word of another contrast too: `T1 FLAIR`."""
NAMES: dict[str, re.Pattern[str]] = {
    "FLAIR": re.compile(r"flair|dark[ _-]?fluid|(?<![a-z])tirm(?![a-z])"),
    "T2starw": re.compile(r"t2[ _-]?star|t2\*|(?<![a-z])t2s(?![a-z])"),
    "T2w": re.compile(r"(?<![a-z0-9])t2(?!\d)|(?<![a-z])(?:frfse|space[ _-]?t2)(?![a-z])"),
    "PDw": re.compile(r"(?<![a-z])pdw?(?![a-z])|proton"),
}
"""Words of series, in small letters; FLAIR goes before T2w (`t2_flair`)."""
KINDS: dict[str, frozenset[str]] = {
    "FLAIR": frozenset({"FLUID_ATTENUATED"}),
    "T2starw": frozenset({"T2_STAR"}),
    "PDw": frozenset({"PROTON_DENSITY"}),
    "T2w": frozenset({"T2"}),
}
"""ImageType, or the contrast of a multi-frame image."""
INVERTED = 1500.0
"""Inversion time (ms) from which on fluid is what is dark: FLAIR."""
LATE = 50.0
"""Echo time (ms) of a spin echo from which on it is T2w."""


def told_contrast(series: Series) -> str | None:
    """Return T2w, FLAIR, PDw or T2starw where a series tells it; None for T1w and all else."""
    if T1.search(series.words):
        return None
    for contrast, kinds in KINDS.items():
        if series.kind & kinds:
            return contrast
    for contrast, pattern in NAMES.items():
        if pattern.search(series.words):
            return contrast
    if "SE" not in series.sequence or "EP" in series.sequence:
        return None
    if series.physics.get("te", 0.0) < LATE:
        return None
    return "FLAIR" if series.physics.get("ti", 0.0) >= INVERTED else "T2w"
