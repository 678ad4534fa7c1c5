"""Which contrast a file or folder name tells, for cohorts of another contrast than T1w."""

import re
from collections.abc import Collection
from pathlib import Path

from pipeline.sources.file_kinds import (
    OTHER_KINDS,
    RESULT_FOLDERS,
    RESULT_WORD,
    SHORT_KINDS,
    T1_WORD,
    not_t1w,
    result_by_prefix,
    stem_of,
)

WORDS: dict[str, re.Pattern[str]] = {
    "FLAIR": re.compile(r"(?:t2w?)?flair\w*|tirm|darkfluid|fluid"),
    "T2starw": re.compile(r"t2star(?:w|weighted)?"),
    "T2w": re.compile(r"t2w?|t2weighted|t2tse|t2fse|t2space|cube|t2axial"),
    "PDw": re.compile(r"pdw?|pdweighted|protondensity"),
}
"""Words of a name, in small letters, of each contrast; FLAIR goes before T2w (`T2_FLAIR`)."""
NO_T1 = re.compile(r"anat")
"""Words among those of T1w that say nothing of the contrast."""


def not_of(contrast: str, path: Path, stems: Collection[str], below: Path) -> str | None:
    """Return why an image is none of a cohort's contrast by its name or folders, or None.

    As for T1w, a name that tells nothing is taken; quality control then judges. The other
    parameters are those of `file_kinds.not_t1w`.
    """
    if contrast == "T1w":
        return not_t1w(path, stems, below)
    folders = [part.lower() for part in path.relative_to(below).parts[:-1]]
    if results := sorted(filter(RESULT_FOLDERS.fullmatch, folders)):
        return f"in a folder {results[0]}"
    stem = stem_of(path.name).lower()
    plain = re.sub(r"(?:^|_)(?:sub|ses)-[a-z0-9]+", "", stem)
    words = _words(plain)
    if result := next(filter(RESULT_WORD.fullmatch, words), None):
        return f"a mask, label map or segmentation by its name ({result})"
    found = told_by(words)
    if found is None:
        found = next(filter(None, (told_by(_words(name)) for name in reversed(folders))), None)
    if found is not None and found != contrast:
        return f"{found} by its name" if found != "other" else "of another kind by its name"
    return result_by_prefix(stem, stems)


def told_by(words: Collection[str]) -> str | None:
    """Return the contrast that words tell, `other` for another kind of image, None for nothing."""
    if any(T1_WORD.fullmatch(word) and not NO_T1.fullmatch(word) for word in words):
        return "T1w"
    for contrast, pattern in WORDS.items():
        if any(map(pattern.fullmatch, words)):
            return contrast
    other = any(OTHER_KINDS.fullmatch(w) or SHORT_KINDS.fullmatch(w) for w in words)
    return "other" if other else None


def _words(name: str) -> list[str]:
    joined = re.sub(r"dark[-_ ]fluid", "darkfluid", name)
    joined = re.sub(r"t2[-_ ]?(?:star|\*)", "t2star", joined)
    joined = re.sub(r"proton[-_ ]density", "protondensity", joined)
    return [word for word in re.split(r"[^a-z0-9]+", joined) if word]
