"""Leave out processed copies of an image: stripped, defaced, corrected, on another grid."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.sources.file_kinds import stem_of

PROCESSED = re.compile(
    r"(?:[-_](?:brain|bet|stripped|skull[-_]?stripped|masked|deface[ds]?|orig|unbiased|bias"
    r"|biascorr|n4|to[-_]mni(?:152)?(?:[-_](?:non)?linear)?))+",
    re.IGNORECASE,
)
"""Suffixes that processing adds to the name of the source image."""
HCP = "T1w_acpc_dc_restore"
"""T1w of a subject of the Human Connectome Project, in a folder T1w."""


def drop_copies(paths: Sequence[Path], root: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the images that are not copies by their names, and the copies with the reason.

    `T1_brain` is left where `T1` is in the same folder or the one above (below the root); alone it
    is taken. Of a subject of the Human Connectome Project `T1w/T1w_acpc_dc_restore` is taken.
    """
    left = dict(_of_hcp(paths, root))
    stems: dict[Path, dict[str, Path]] = defaultdict(dict)
    for path in paths:
        stems[path.parent].setdefault(stem_of(path.name).lower(), path)
    for path in paths:
        source = None if path in left else _source(path, stems, root)
        if source:
            left[path] = f"made of {source.name} by its name, which is taken"
    return [path for path in paths if path not in left], list(left.items())


def _of_hcp(paths: Sequence[Path], root: Path) -> list[tuple[Path, str]]:
    chosen = {
        path.parent.parent: path
        for path in paths
        if path.parent.name == "T1w" and stem_of(path.name) == HCP and path.parent != root
    }
    return [
        (path, f"another copy of T1w/{chosen[above].name}, which is taken")
        for path in paths
        for above in path.parents
        if above in chosen and path != chosen[above]
    ]


def _source(path: Path, stems: dict[Path, dict[str, Path]], root: Path) -> Path | None:
    """Return the image from which this one was made, by its name, or None."""
    stem = stem_of(path.name).lower()
    folders = [path.parent, *([path.parent.parent] if path.parent != root else [])]
    for end in (match.start() for match in re.finditer(r"[-_]", stem)):
        if PROCESSED.fullmatch(stem[end:]):
            sources = (stems[f].get(stem[:end]) for f in folders if f in stems)
            return next((source for source in sources if source), None)
    return None
