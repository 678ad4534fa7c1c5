"""Whose image it is: which folder or file name of a plain tree tells people apart."""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.labels.visits import DATE, months_of_visit
from pipeline.runtime.progress import counted, few
from pipeline.sources.file_kinds import T1_WORD, stem_of

log = logging.getLogger(__name__)

Parts = tuple[str, ...]
"""Names of the folders below the root, and of the file without its suffix."""

IDS = tuple(
    re.compile(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])", re.IGNORECASE)
    for pattern in (
        r"sub-(?P<subject>[a-z0-9]+)",
        r"(?P<subject>OAS[12]_\d{4})_(?P<session>MR\d+)",
        r"(?P<subject>OAS3\d{4})_\w*?_?(?P<session>d\d{4})",
        r"(?P<subject>\d{3}_S_\d{4,5})",
        r"(?P<subject>\d{7})_\d{5}_(?P<session>\d)_\d",
    )
)
"""Ids that are one wherever they stand: BIDS, OASIS-1 to 3, ADNI, UK Biobank (instance)."""
SESSION = re.compile(r"ses-([A-Za-z0-9]+)")
SCANNED = re.compile(r"(\d{4})-(\d\d)-(\d\d)_\d\d_\d\d_\d\d(?:\.\d+)?")
"""Folders of ADNI: when the scan was made."""
CONTAINER = re.compile(
    r"(?:dis[ck]|cd|dvd|part|batch|chunk|release|download)s?[-_ ]?\d*|data(?:base|sets?)?|raw"
    r"|raw[-_ ]?data|source(?:[-_ ]?data)?|orig(?:inal)?s?|images?(?:t[rs])?|imaging|img|scans?"
    r"|subj(?:ect)?s?|participants?|people|persons?|nifti|nii|niftis|niigz|bids|files?|input"
    r"|mri?s?|mri[-_ ]?data|anat(?:omical)?|struct(?:ural)?s?|t1w?(?:[-_]?(?:images?|mri?))?|3t|7t"
    r"|1[._]?5t|mp2?rages?|brains?|heads?|volumes?|processed|unprocessed|preproc(?:essed)?|all"
)
"""Names of folders that hold everybody's images; the same person may be below two of them."""
GROUP = re.compile(
    r"(?:site|cent(?:er|re)|scanner|hospital|group|arm|cohort|fold|set|study|project)[-_ ]?\w?\d*"
    r"|train(?:ing)?|test(?:ing)?|val(?:id|idation)?|dev|ad|mci|[esl]mci|smc|cn|nc|hc|ctrls?"
    r"|controls?|patients?|healthy|cases?|(?:non)?demented|dementia|alzheimers?|normals?|males?"
    r"|females?|young|old|elderly"
)
"""Names of groups of people; one number below two of them is not known to be one person."""
VISIT = re.compile(
    r"baseline|bl|follow[-_ ]?up[-_ ]?\d*|(?:visit|ses|session|timepoint|wave)[-_ ]?\d+"
)
REPEATED = re.compile(
    r"(?:ses|session|visit|scan|run|rep|tp|t|v|time|timepoint|wave|acq|echo|series|se|im|img|image"
    r"|i|s|mri?|file|volume|slice|mpr|post|pre|scan\w*run)[-_ ]?\d*"
    r"|(?:19|20)\d\d(?:[-_.]?\d\d){0,2}"
)
"""Names that one person's visits, scans and runs have."""
LEVELS = 4
"""Folders above the one of a person, at most."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose image it is, by the names of its folders and its own."""

    subject: str
    session: str
    rest: Parts
    """What the names tell beside."""
    above: Parts = ()
    """Folders above, which name nobody."""


def owners_of(paths: Sequence[Path], root: Path) -> dict[Path, Owner]:
    """Return the owner of every image; the log tells where it is not the first folder.

    An id of a kind that is known (`OAS1_0001_MR1`, `002_S_0413`, `sub-7`) counts wherever it
    stands. Else it is the first folder below the root, or the file name where there is none.
    Folders that hold everybody's images (`data`, `disc1`), groups (`AD`, `site2`) and visits are
    passed over, and a first folder below which the names alone tell people apart.
    """
    names = {
        path: (*path.relative_to(root).parts[:-1], stem_of(path.name)) for path in sorted(paths)
    }
    owners = {path: found for path, parts in names.items() if (found := _by_id(parts))}
    left = {path: _stripped(parts) for path, parts in names.items() if path not in owners}
    skipped = _levels(list(left.values()))
    split = {
        path: (names[path][: len(names[path]) - len(own) + skipped], own[skipped:])
        for path, own in left.items()
    }
    owners |= _with_visits(split)
    unique = {path for path in owners if any(map(_unique, names[path]))}
    owners |= _apart({path: owner for path, owner in owners.items() if path not in unique})
    _tell(root, owners)
    return owners


def _by_id(parts: Parts) -> Owner | None:
    """Return the owner that an id of a known kind tells."""
    for place, part in enumerate(parts):
        match = next((found for pattern in IDS if (found := pattern.search(part))), None)
        if match:
            below = parts[place + 1 :]
            session = match.groupdict().get("session") or next(
                filter(None, map(_session, below)), ""
            )
            around = (part[: match.start()], part[match.end() :])
            rest = (*around, *(p for p in below if not _session(p)))
            return Owner(match["subject"], session, rest, parts[:place])
    return None


def _session(part: str) -> str:
    named, scanned = SESSION.fullmatch(part), SCANNED.fullmatch(part)
    return named[1] if named else "".join(scanned.groups()) if scanned else ""


def _nobody(part: str) -> bool:
    return bool(CONTAINER.fullmatch(part.lower()) or GROUP.fullmatch(part.lower()))


def _stripped(parts: Parts) -> Parts:
    """Return the names from the first that may be a person's; all where none may."""
    place = next((n for n, part in enumerate(parts) if not _nobody(part)), None)
    below = parts[place:] if place is not None else parts
    plain = place == len(parts) - 1 and not re.search(r"\d\d", below[0])
    return parts if place is None or (plain and T1_WORD.match(below[0].lower())) else below


def _person(part: str) -> bool:
    """Tell whether a name may be that of one person among many: it has digits and is no visit."""
    low = part.lower()
    words = re.split(r"[^a-z0-9]+", low)
    leads = re.search(r"\d\d", words[0]) and not T1_WORD.fullmatch(words[0])  # IXI012-Guys-0738-T1
    return bool(
        re.search(r"\d", part)
        and not (REPEATED.fullmatch(low) or _nobody(part) or VISIT.fullmatch(low))
        and (leads or not any(map(T1_WORD.fullmatch, words)))
        and not DATE.fullmatch(re.sub(r"[^a-z0-9]", "", low))
        and (part.isdigit() or months_of_visit(part) is None)
    )


def _levels(tree: list[Parts], depth: int = 0) -> int:
    """Return how many folders to pass over so that names tell people apart; 0 where none do."""
    if len(tree) < 2 or depth == LEVELS or min(map(len, tree)) < 2:
        return 0
    heads = {parts[0] for parts in tree}
    nexts = {parts[1] for parts in tree}
    digits = any(re.search(r"\d", head) for head in heads)
    people = all(map(_person, nexts)) and len(nexts) > 1
    if len(heads) == 1:
        if len(nexts) == 1:
            deeper = _levels([parts[1:] for parts in tree], depth + 1)
            return deeper + 1 if deeper else 0
        folders = min(map(len, tree)) > 2 and not digits
        named = not any(_nobody(n) or REPEATED.fullmatch(n.lower()) or _visit(n) for n in nexts)
        return int(people or (folders and named and not any(map(T1_WORD.match, nexts))))
    once = len({parts[:2] for parts in tree}) == len(nexts)
    return int(not digits and people and once and len(nexts) > len(heads))


def _visit(part: str) -> bool:
    return bool(VISIT.fullmatch(part.lower())) or months_of_visit(part) is not None


def _with_visits(split: Mapping[Path, tuple[Parts, Parts]]) -> dict[Path, Owner]:
    """Return owners of names and the folders passed over, some of which may be visits or groups."""
    owners = {path: Owner(own[0], "", own[1:], above) for path, (above, own) in split.items()}
    visits = {own[0] for _, own in split.values() if VISIT.fullmatch(own[0].lower())}
    below = [own[1] if len(own) > 1 else "" for _, own in split.values()]
    several = len(set(below)) > 1 and len(set(below)) < len(below)
    if visits and several and all(map(_person, below)) and visits == {
        own[0] for _, own in split.values()
    }:  # fmt: skip
        return {path: Owner(own[1], own[0], own[2:], above) for path, (above, own) in split.items()}
    return owners


def _unique(part: str) -> bool:
    """Tell whether a name holds an id that no two people of any site have."""
    return any(pattern.search(part) for pattern in IDS[1:])


def _apart(owners: dict[Path, Owner]) -> dict[Path, Owner]:
    """Return owners with the names of their groups, where one name is below two of them."""
    places: dict[str, set[Parts]] = defaultdict(set)
    for owner in owners.values():
        places[owner.subject].add(_groups(owner.above))
    if any(len(found) > 1 for found in places.values()):
        owners = {
            path: replace(owner, subject="".join((*_groups(owner.above), owner.subject)))
            for path, owner in owners.items()
        }
    return owners


def _groups(above: Parts) -> Parts:
    return tuple(part for part in above if GROUP.fullmatch(part.lower()))


def _tell(root: Path, owners: Mapping[Path, Owner]) -> None:
    """Say which names were taken for people's, and warn where all images are one person's."""
    people = list(dict.fromkeys(owner.subject for owner in owners.values()))
    deeper = [owner for owner in owners.values() if owner.above]
    if deeper:
        tops = sorted({"/".join(owner.above) for owner in deeper})
        log.warning(
            "%s: %s (%s) no person's name; subjects are taken from the names below: %s",
            root,
            "1 folder has" if len(tops) == 1 else f"{len(tops)} folders have",
            few(tops, 3),
            few(list(dict.fromkeys(owner.subject for owner in deeper))),
        )
    sessions = {owner.session for owner in owners.values()}
    if len(people) == 1 and len(owners) > 1 and sessions == {""}:
        log.warning(
            "%s: all %s are of one subject: %s; if they are not, give a table with subject_id"
            " and path",
            root,
            counted(len(owners), "image"),
            people[0],
        )
