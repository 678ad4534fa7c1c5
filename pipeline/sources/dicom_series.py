"""Select the T1w among the DICOM series of a session, by their headers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.labels.preferred_words import preference
from pipeline.labels.scan_records import natural_key
from pipeline.sources.dicom_contrasts import told_contrast
from pipeline.sources.dicom_headers import Headers, Series

MIN_SLICES = 8
"""Fewest slices of a head."""
MAX_FILLED = 0.02
"""Largest share of missing slices that are interpolated."""


def _any(*words: str) -> re.Pattern[str]:
    """Return a pattern of these words, not as part of longer ones; digits may follow `_`."""
    return re.compile(rf"(?<![a-z0-9])(?:{'|'.join(words)})(?![a-z0-9])")


T1 = re.compile(
    r"(?<![a-z0-9])t1|mp-?2?-?rage|mp rage|fspgr|spgr|bravo|(?<![a-z])tfl(?!_?b1)|(?<![a-z])tfe"
    r"|t1tfe|ir-?prep|fast ?spoiled|vibe|(?<![a-z])lava"
)
"""Names of T1w sequences; Siemens' own begin `*tfl3d`."""
NO_T1: dict[str, re.Pattern[str]] = {
    "a T1 map": _any(r"t1[ _-]?map\w*", r"\w*t1_images", r"r1[ _-]?map\w*", "molli", r"t1w?map\w*"),
    "an inversion of MP2RAGE": re.compile(r"(?<![a-z])inv(?:ersion)?[ _-]?[12](?!\d)"),
    "a field map": _any(r"\w*b[01][ _-]?map\w*", r"gre_?field\w*", r"field_?map\w*"),
    "a localizer": re.compile(r"locali[sz]er|scout|survey|3[ -]?(?:plane|pl loc)"),
    "diffusion": re.compile(r"(?<![a-z])(?:dwi|dti|dki|noddi|hardi|e?adc|diff)(?![a-z])|diffusion"),
    "a projection": re.compile(r"(?<![a-z])(?:mip|minip)(?![a-z])|subtraction"),
}
"""Kinds of series by words in their names, whatever other words there are."""
NO_T1_UNLESS_SAID: dict[str, re.Pattern[str]] = {
    "T2w or FLAIR": re.compile(
        r"(?<![a-z0-9])t2(?!\d)|flair|dark[ _-]?fluid|(?<![a-z])(?:tirm|stir|ciss|fiesta)(?![a-z])"
    ),
    "PDw": re.compile(r"(?<![a-z])pdw?(?![a-z])|proton|dual[ _-]?echo"),
    "functional or perfusion": re.compile(
        r"bold|fmri|(?<![a-z])(?:rest|resting|task|p?c?asl|pasl|cbf|dsc|dce|pwi|epi)(?![a-z])|ep2d"
        r"|perf"
    ),
    "susceptibility": re.compile(r"(?<![a-z])(?:swi|swan|qsm|hemo|phase|pha|mag_images)(?![a-z])"),
    "angiography": re.compile(r"(?<![a-z])(?:tof|mra|mrv|cow|pc3d)(?![a-z])|angio|venogra"),
    "spectroscopy": re.compile(r"(?<![a-z])(?:svs|csi|press|mrs)(?![a-z])|spectro"),
    "a calibration or planning scan": _any("loc", "plan(?:ning)?", "cal(?:ibration)?", "asset"),
}
"""Kinds of series by words in their names, unless `T1` is there too (`T1 FLAIR`, `Epi T1 3D`)."""
NO_T1_KIND: dict[str, frozenset[str]] = {
    "a T1 map": frozenset({"T1 MAP", "T1MAP", "T1_MAP", "R1 MAP", "R1_MAP", "T2 MAP", "T2_MAP"}),
    "a phase image": frozenset({"P", "PHASE", "PHASE MAP", "PHASE_MAP"}),
    "a real or imaginary part": frozenset({"R", "I", "REAL", "IMAGINARY"}),
    "a localizer": frozenset({"LOCALIZER", "SCOUT", "LOCALISER"}),
    "a projection": frozenset({
        "PROJECTION IMAGE", "MIP", "MINIP", "MAX_IP", "MIN_IP", "SUBTRACTION", "SUB"}),
    "T2w or FLAIR": frozenset({"T2", "T2_STAR", "FLUID_ATTENUATED", "STIR"}),
    "PDw": frozenset({"PROTON_DENSITY"}),
    "diffusion": frozenset({
        "DIFFUSION", "ADC", "FA", "TRACEW", "TENSOR", "EADC", "EXP ADC", "DIFFUSION_ANISO"}),
    "functional or perfusion": frozenset({"FMRI", "MOSAIC", "PERFUSION", "ASL", "CBF", "TTP"}),
    "susceptibility": frozenset({"SWI", "MNIP"}),
    "angiography": frozenset({"TOF", "ANGIO", "FLOW_ENCODED", "VELOCITY"}),
    "a picture or report": frozenset({"SCREEN SAVE", "CSA REPORT", "OTHER SCREEN"}),
    "the fat of a Dixon image": frozenset({"FAT", "F"}),
}  # fmt: skip
"""Kinds of series by ImageType (or the contrast of a multi-frame image) that are no T1w."""
DERIVED_KINDS = (
    "a T1 map", "a phase image", "a real or imaginary part", "a localizer", "a projection",
    "diffusion", "functional or perfusion", "angiography", "a picture or report",
    "the fat of a Dixon image",
)  # fmt: skip
"""Of these, what is no image of a contrast at all, whatever its name."""
REFORMATTED = frozenset({"MPR", "MPR_CURVED", "REFORMATTED", "CSA MPR", "CSA RESAMPLED"})
REFORMATTED_NAME = re.compile(r"reformat|mpr[ _-]?(?:range|tra|cor|sag|ax)")
NO_AGENT = frozenset({"", "NO", "NONE", "N", "0", "OHNE", "SENZA", "NATIV", "NAN", "N/A", "SANS"})
AGENT_NAME = re.compile(
    r"(?<![a-z])(?:gd|gad|gado\w*|post|km|mdc|ce|contrast|c\+|dotarem)(?![a-z])"
    r"|\+ ?(?:c(?![a-z])|gd|km)"
)
"""`t1_mprage_+C`, `T1 post Gd`, `t1 nach KM`."""
PRE_NAME = re.compile(r"(?<![a-z])(?:pre|non|no|w/?o|without|nativ|ohne)(?![a-z])")


@dataclass(frozen=True, slots=True)
class Selection:
    """Candidates for the T1w of a session, and the series that are left out."""

    candidates: list[Series]
    """The best first."""
    left: list[tuple[Series, str]]
    """Series and the reason."""


def select(headers: Headers, prefer: Sequence[str] = (), contrast: str = "T1w") -> Selection:
    """Return the series of a contrast, of a session, in the order in which they are to be tried.

    Series of another contrast (by ImageType, name or modality), that hold no whole volume, or lack
    too many slices are left out with the reason. The others are ordered: words of `prefer`;
    images as scanned before reformats; without contrast agent before with; combined echoes before
    single ones; MP2RAGE's UNI-DEN, and other T1w, before its plain UNI; whole ones before those
    that lack slices; the smallest largest voxel edge; original before derived; more slices; the
    lower number. Where no series has a T1w's name or timing, the only one left is taken; of
    another contrast (`dicom_contrasts`) none.
    """
    left: list[tuple[Series, str]] = []
    sound: list[Series] = []
    for series in headers.series:
        fault = _other_modality(series) or other_kind(series, contrast) or _no_volume(series)
        if fault:
            left.append((series, fault))
        else:
            sound.append(series)
    if contrast != "T1w":
        ranked = sorted(sound, key=lambda s: list(_rank(s, prefer).values()))
        return Selection(ranked, left)
    named = [series for series in sound if is_t1w(series)]
    others = [series for series in sound if series not in named] if named else []
    if not named and len(sound) > 1:
        why = "no T1w by its name, contrast or timing"
        return Selection([], left + [(series, why) for series in sound])
    left += [(series, "no T1w by its name, contrast or timing") for series in others]
    ranked = sorted(named or sound, key=lambda s: list(_rank(s, prefer).values()))
    return Selection(ranked, left)


def why_later(
    series: Series, taken: Series, prefer: Sequence[str] = (), contrast: str = "T1w"
) -> str:
    """Return the reason for which a series ranks behind the one that is taken."""
    rank, first = _rank(series, prefer), _rank(taken, prefer)
    why = next((name for name in rank if rank[name] > first[name]), "it could not be converted")
    return f"{contrast} too, but {why} ({series.edge:.1f} mm)"


def is_t1w(series: Series) -> bool:
    """Return whether a series is T1w by name, contrast or timing."""
    if T1.search(series.words) or "T1" in series.kind:
        return True
    if not series.sequence or "EP" in series.sequence:
        return False
    te, tr, ti, flip = (series.physics.get(name, 0.0) for name in ("te", "tr", "ti", "flip"))
    if "GR" in series.sequence:
        # An inversion recovery with a gradient echo train, or a spoiled gradient echo.
        return (300 <= ti <= 1400 and te < 8) or (0 < tr < 50 and flip >= 8 and 0 < te < 8)
    return "SE" in series.sequence and 0 < te <= 25 and 0 < tr <= 900


def with_agent(series: Series) -> bool:
    """Return whether a contrast agent was given, by the header or by name."""
    if series.agent.upper() not in NO_AGENT:
        return True
    return bool(AGENT_NAME.search(series.words)) and not PRE_NAME.search(series.words)


def notes_of(series: Series) -> list[str]:
    """Return the oddities of a series that is taken, in words for the QC table."""
    notes = []
    missing = series.slices.missing
    if missing:
        total = series.slices.count + missing
        notes.append(
            f"{missing} of {total} slices are missing in the DICOM series and were interpolated"
            f" ({missing / total:.1%})"
        )
    if with_agent(series):
        notes.append("scanned with a contrast agent")
    if _plain_uni(series):
        notes.append("a plain UNI of MP2RAGE, whose air is noise")
    if _reformatted(series):
        notes.append(f"a reformatted series (largest voxel edge {series.edge:.1f} mm)")
    return notes


def _other_modality(series: Series) -> str | None:
    return f"modality {series.modality}" if series.modality not in {"MR", ""} else None


def other_kind(series: Series, contrast: str) -> str | None:
    """Return why a series is not of this contrast, or None."""
    if contrast == "T1w":
        return no_t1w(series)
    found = contrast_of(series)
    if found == contrast:
        return None
    # In a session of T1w the words for the user are those of `no_t1w`.
    return f"{found} by its name or timing" if found else no_t1w(series) or f"no {contrast}"


def contrast_of(series: Series) -> str | None:
    """Return T1w, or a contrast that is told by name, ImageType or timing; None for neither.

    What is derived from several images (maps, projections, diffusion) is none.
    """
    told = told_contrast(series)
    if told is None:
        return "T1w" if no_t1w(series) is None and is_t1w(series) else None
    derived = any(pattern.search(series.words) for pattern in NO_T1.values())
    kinds = frozenset().union(*(NO_T1_KIND[name] for name in DERIVED_KINDS))
    return None if derived or series.kind & kinds else told


def no_t1w(series: Series) -> str | None:
    """Return the other kind that a series is by its ImageType or name, or None."""
    for kind, image_types in NO_T1_KIND.items():
        if present := sorted(series.kind & image_types):
            return f"{kind} (ImageType {present[0]})"
    names = NO_T1 if T1.search(series.words) else NO_T1 | NO_T1_UNLESS_SAID
    for kind, pattern in names.items():
        if pattern.search(series.words):
            return f"{kind} by name"
    if "EP" in series.sequence:
        return "an echo-planar image (ScanningSequence EP)"
    te = series.physics.get("te", 0.0)
    if "SE" in series.sequence and te >= 50 and not T1.search(series.words):
        return f"T2w by its echo time ({te:.0f} ms)"
    return None


def _no_volume(series: Series) -> str | None:
    slices = series.slices
    if not series.positions:
        return "no position of its slices in the header"
    if slices.count < MIN_SLICES:
        return f"{slices.count} slice positions, too few for a head"
    if slices.volumes > 1:
        return f"{slices.volumes} volumes in one series ({len(series.positions)} images)"
    if slices.doubled:
        return f"{slices.doubled} slices are doubled ({slices.count} positions)"
    if slices.uneven:
        return f"slices at uneven distances (usually {slices.step:.2f} mm)"
    share = slices.missing / (slices.count + slices.missing)
    if share > MAX_FILLED:
        return (
            f"{slices.missing} of {slices.count + slices.missing} slices are missing ({share:.1%},"
            f" at most {MAX_FILLED:.0%} may be filled in); export the series again"
        )
    return None


def _reformatted(series: Series) -> bool:
    secondary = {"DERIVED", "SECONDARY"} <= series.kind
    return bool(
        secondary
        or series.kind & REFORMATTED
        or REFORMATTED_NAME.search(series.description.lower())
    )


def _plain_uni(series: Series) -> int:
    """Return 1 for a plain UNI of MP2RAGE, whose air is noise; 0 for UNI-DEN and all others."""
    uni = "UNI" in series.kind or re.search(r"(?<![a-z])uni(?![a-z])", series.words)
    return int(bool(uni) and not re.search(r"den(?![a-z])|denoise", series.words))


def _echo(series: Series) -> int:
    """Return 0 for all echoes combined and for a sequence of one; else which echo it is."""
    if (
        re.search(r"(?<![a-z])(?:rms|mean|combined)(?![a-z])", series.words)
        or "MEAN" in series.kind
    ):
        return 0
    return series.echo or int(bool(re.search(r"me-?mp-?rage", series.words)))


def _rank(series: Series, prefer: Sequence[str]) -> dict[str, Any]:
    """Return criteria that rank T1w series: words for the user → sort key, most important first."""
    return {
        "not first in cohort.prefer": preference(series.description, prefer),
        "a reformatted series": _reformatted(series),
        "with a contrast agent": with_agent(series),
        "a single echo": _echo(series),
        "a plain UNI with noise as air": _plain_uni(series),
        "slices are missing": series.slices.missing > 0,
        "larger voxels": round(series.edge, 1),
        "derived": "DERIVED" in series.kind,
        "fewer slices": -series.slices.count,
        "a later series of the same kind": natural_key(series.number),
    }
