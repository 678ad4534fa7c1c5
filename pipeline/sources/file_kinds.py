"""Kinds of image files by their names: formats that are read, and images that are no T1w."""

import re
from collections.abc import Collection
from pathlib import Path

READ = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img")
"""Formats that are read."""
CONVERT = "convert it to NIfTI"
FOREIGN: dict[str, str] = {
    **dict.fromkeys((".mnc", ".mnc.gz", ".mnc2"), f"MINC; {CONVERT} (mnc2nii, nibabel)"),
    **dict.fromkeys((".nrrd", ".nhdr"), f"NRRD; {CONVERT} (3D Slicer, SimpleITK)"),
    **dict.fromkeys((".mha", ".mhd"), f"MetaImage; {CONVERT} (3D Slicer, SimpleITK)"),
    **dict.fromkeys((".par", ".rec", ".xml.rec"), f"Philips PAR/REC; {CONVERT} (dcm2niix)"),
    **dict.fromkeys((".head", ".brik", ".brik.gz"), f"AFNI; {CONVERT} (3dAFNItoNIFTI)"),
    **dict.fromkeys((".mif", ".mif.gz", ".mih"), f"MRtrix; {CONVERT} (mrconvert)"),
    **dict.fromkeys((".v", ".vista", ".gipl", ".gipl.gz", ".vmr", ".vtk"), CONVERT),
    **dict.fromkeys((".img.gz", ".hdr.gz"), "a compressed Analyze or NIfTI pair; gunzip both"),
    **dict.fromkeys(
        (".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip"), "unpack it to .nii or .nii.gz"
    ),
}
"""Formats that are not read → remedy."""
FORMATS = (*READ, *sorted(FOREIGN, key=len, reverse=True))
OTHER_KINDS = re.compile(
    r"t2|t2w|t2star|t2starw|flair|pdw|pdt2|bold|sbref|dwi|dti|adc|tracew?|epi|rest|func|fmri"
    r"|p?c?asl|m0scan|perf|cbf|swi|swan|qsm|tof|angio|mra|fmap|fieldmap|magnitude[12]?|phase[12]?"
    r"|phasediff|locali[sz]er|scout|survey|inv[12]|t1map|t1mapping|r1map|t2map|r2map|r2starmap"
    r"|mtsat|mtw|mtr|tb1map|tb1tfl|irt1|vfa|megre|mese|mp2rage|defacemask|xfm|warp|warpfield"
    r"|jacobian|jac|svs"
)
"""Words of images that are no T1w: as the last word of a name, or as any if none is of a T1w."""
SHORT_KINDS = re.compile(r"pd|fa|md|ct|pet")
"""The same as the last word only: `pd_001` may be a patient."""
T1_WORD = re.compile(r"t1(?!map|mapping)\w*|\w*mp2?rage\w*|uni(?:t1|den)?|\w*spgr|bravo|anat")
RESULT_WORD = re.compile(
    r"\w*masks?|mask\d+|\w*seg|segment\w*|segs|seg\d+|\w*labels?|label\w*|aparc\w*|wmparc\w*"
    r"|parc|parcellat\w*|atlas|ribbon|filled|lesions?|rois?|probseg|pve(?:seg)?"
)
"""Words of masks, label maps and segmentations."""
RESULT_FOLDERS = re.compile(
    r"masks?|labels?(?:tr|ts)?|segs?|segmentations?|lesions?|derivatives|mninonlinear"
)
SURE_PREFIX = re.compile(
    r"(?:s\d*)?m0?w[cp][0-6](?=\D)|(?:i?y|wj|iw)_|u_r[cp]\d|biasfield_|r[cp][1-6](?=\w*(?:t1|mp|anat|sub))"
)
"""Prefixes that SPM and CAT12 put before the name of the source image."""
LIKELY_PREFIX = re.compile(
    r"(?:s\d*)?(?:r?w?[cp][0-6]|wp[0-6]|wm|wmi|mi|m|w|r|s)(?=(?:t1|mprage|mp2rage|anat|struct|sub-))"
)
ANY_PREFIX = re.compile(r"(?:s\d*)?(?:r?w?[cp][0-6]|wp[0-6]|wmi?|mi?|w|r|s\d*)")


def image_format(name: str) -> str | None:
    """Return the suffix of an image's format, read or not; None for other files."""
    low = name.lower()
    return next((s for s in FORMATS if low.endswith(s)), None) if low.endswith(FORMATS) else None


def stem_of(name: str) -> str:
    """Return an image's name without the suffix of its format."""
    suffix = image_format(name)
    return name[: -len(suffix)] if suffix else name


def not_t1w(path: Path, stems: Collection[str], below: Path) -> str | None:
    """Return the reason for which an image is no T1w by its name or folders, or None.

    Parameters
    ----------
    path
        The image.
    stems
        Names of images (without suffix, in small letters) in its folder and the two above; `p0T1`
        is a result if there is `T1`, and may be a person if there is none.
    below
        Folder whose name, and names above it, are not considered.
    """
    stem = stem_of(path.name).lower()
    folders = {part.lower() for part in path.relative_to(below).parts[:-1]}
    if results := sorted(filter(RESULT_FOLDERS.fullmatch, folders)):
        return f"in a folder {results[0]}"
    words = re.split(r"[^a-z0-9]+", stem)
    kinds = sorted(filter(OTHER_KINDS.fullmatch, folders))
    if kinds and not any(T1_WORD.fullmatch(word) for word in words):
        return f"in a folder {kinds[0]}"
    plain = re.sub(r"(?:^|_)(?:sub|ses)-[a-z0-9]+", "", stem)  # `sub-mask01` is a person
    if part := re.search(
        r"(?<![a-z0-9])(?:inv[-_]?[12]|part-(?:phase|real|imag))(?![a-z0-9])", plain
    ):
        return f"{part[0]} in its name"
    return _of_other_kind(
        [word for word in re.split(r"[^a-z0-9]+", plain) if word]
    ) or result_by_prefix(stem, stems)


def _of_other_kind(words: list[str]) -> str | None:
    """Return in words which part of a name is of another image than a T1w, or None."""
    named = any(T1_WORD.fullmatch(word) for word in words)
    for position, word in enumerate(words, 1):
        last = position == len(words)
        if last and SHORT_KINDS.fullmatch(word):
            return f"{word} in its name"
        if OTHER_KINDS.fullmatch(word) and (last or not named):
            return f"{word} in its name"
        if RESULT_WORD.fullmatch(word):
            return f"a mask, label map or segmentation by its name ({word})"
    return None


def result_by_prefix(stem: str, stems: Collection[str]) -> str | None:
    """Return in words which prefix of SPM or CAT12 a name has, or None."""
    if match := SURE_PREFIX.match(stem) or LIKELY_PREFIX.match(stem):
        return f"a result of SPM or CAT12 by its name ({match[0]}…)"
    match = ANY_PREFIX.match(stem)
    for end in range(match.end() if match else 0, 0, -1):
        if ANY_PREFIX.fullmatch(stem[:end]) and stem[end:] in stems and len(stem) > end + 1:
            return f"a result made of {stem[end:]} by its name ({stem[:end]}…)"
    return None
