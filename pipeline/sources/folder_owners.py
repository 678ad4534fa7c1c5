"""Owners of images in a plain tree: the folder or file name that names the person."""

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
"""Ids that are recognised anywhere: BIDS, OASIS-1 to 3, ADNI, UK Biobank (with instance)."""
SESSION = re.compile(r"ses-([A-Za-z0-9]+)")
SCANNED = re.compile(r"(\d{4})-(\d\d)-(\d\d)_\d\d_\d\d_\d\d(?:\.\d+)?")
"""Folders of ADNI: date and time of the scan."""
CONTAINER = re.compile(
    r"(?:dis[ck]|cd|dvd|part|batch|chunk|release|download)s?[-_ ]?\d*|data(?:base|sets?)?|raw"
    r"|raw[-_ ]?data|source(?:[-_ ]?data)?|orig(?:inal)?s?|images?(?:t[rs])?|imaging|img|scans?"
    r"|subj(?:ect)?s?|participants?|people|persons?|nifti|nii|niftis|niigz|bids|files?|input"
    r"|mri?s?|mri[-_ ]?data|anat(?:omical)?|struct(?:ural)?s?|t1w?(?:[-_]?(?:images?|mri?))?|3t|7t"
    r"|1[._]?5t|mp2?rages?|brains?|heads?|volumes?|processed|unprocessed|preproc(?:essed)?|all"
)
"""Folders with images of everybody; the same person may be below two of them."""
GROUP = re.compile(
    r"(?:site|cent(?:er|re)|scanner|hospital|group|arm|cohort|fold|set|study|project)[-_ ]?\w?\d*"
    r"|train(?:ing)?|test(?:ing)?|val(?:id|idation)?|dev|ad|mci|[esl]mci|smc|cn|nc|hc|ctrls?"
    r"|controls?|patients?|healthy|cases?|(?:non)?demented|dementia|alzheimers?|normals?|males?"
    r"|females?|young|old|elderly"
)
"""Folders of groups; the same number below two of them may be two people."""
VISIT = re.compile(
    r"baseline|bl|follow[-_ ]?up[-_ ]?\d*|(?:visit|ses|session|timepoint|wave)[-_ ]?\d+"
)
REPEATED = re.compile(
    r"(?:ses|session|visit|scan|run|rep|tp|t|v|time|timepoint|wave|acq|echo|series|se|im|img|image"
    r"|i|s|mri?|file|volume|slice|mpr|post|pre|scan\w*run)[-_ ]?\d*"
    r"|(?:19|20)\d\d(?:[-_.]?\d\d){0,2}"
)
"""Names of visits, scans and runs of one person."""
LEVELS = 4
"""Largest number of folders above the one of a person."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Subject and session of an image, from the names of its folders and its file."""

    subject: str
    session: str
    rest: Parts
    """Other parts of the names."""
    above: Parts = ()
    """Folders above the subject's."""


def owners_of(paths: Sequence[Path], root: Path) -> dict[Path, Owner]:
    """Return the owner of every image; the log names those that are not the first folder.

    An id of a known kind (`OAS1_0001_MR1`, `002_S_0413`, `sub-7`) counts anywhere in the path.
    Else the subject is the first folder below the root, or the file name if there is none. Folders
    with images of everybody (`data`, `disc1`), of groups (`AD`, `site2`) and of visits are
    skipped, and so is a first folder if the names below it are those of people.
    """
    names = {
        path: (*path.relative_to(root).parts[:-1], stem_of(path.name)) for path in sorted(paths)
    }
    owners = {path: owner for path, parts in names.items() if (owner := _by_id(parts))}
    left = {path: _stripped(parts) for path, parts in names.items() if path not in owners}
    skipped = _levels(list(left.values()))
    split = {
        path: (names[path][: len(names[path]) - len(below) + skipped], below[skipped:])
        for path, below in left.items()
    }
    owners |= _with_visits(split)
    unique = {path for path in owners if any(map(_unique, names[path]))}
    owners |= _with_groups({path: owner for path, owner in owners.items() if path not in unique})
    _log_owners(root, owners)
    return owners


def _by_id(parts: Parts) -> Owner | None:
    """Return the owner by an id of a known kind, or None."""
    for place, part in enumerate(parts):
        match = next((hit for pattern in IDS if (hit := pattern.search(part))), None)
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
    """Return the names from the first that may be a person's; all if none may."""
    place = next((n for n, part in enumerate(parts) if not _nobody(part)), None)
    below = parts[place:] if place is not None else parts
    plain = place == len(parts) - 1 and not re.search(r"\d\d", below[0])
    return parts if place is None or (plain and T1_WORD.match(below[0].lower())) else below


def _person(part: str) -> bool:
    """Return whether a name may be one person's among many: it has digits and is no visit."""
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
    """Return the number of folders to skip to reach names of people; 0 if no level has them."""
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
    """Return owners from (skipped folders, names), where the first name may be a visit."""
    owners = {path: Owner(names[0], "", names[1:], above) for path, (above, names) in split.items()}
    visits = {names[0] for _, names in split.values() if VISIT.fullmatch(names[0].lower())}
    below = [names[1] if len(names) > 1 else "" for _, names in split.values()]
    several = len(set(below)) > 1 and len(set(below)) < len(below)
    if visits and several and all(map(_person, below)) and visits == {
        names[0] for _, names in split.values()
    }:  # fmt: skip
        return {
            path: Owner(names[1], names[0], names[2:], above)
            for path, (above, names) in split.items()
        }
    return owners


def _unique(part: str) -> bool:
    """Return whether a name holds an id that is unique over all sites."""
    return any(pattern.search(part) for pattern in IDS[1:])


def _with_groups(owners: dict[Path, Owner]) -> dict[Path, Owner]:
    """Return owners with their groups added to the subject, if one name is in two groups."""
    places: dict[str, set[Parts]] = defaultdict(set)
    for owner in owners.values():
        places[owner.subject].add(_groups(owner.above))
    if any(len(groups) > 1 for groups in places.values()):
        owners = {
            path: replace(owner, subject="".join((*_groups(owner.above), owner.subject)))
            for path, owner in owners.items()
        }
    return owners


def _groups(above: Parts) -> Parts:
    return tuple(part for part in above if GROUP.fullmatch(part.lower()))


def _log_owners(root: Path, owners: Mapping[Path, Owner]) -> None:
    """Log the names taken for subjects, and warn if all images are of one subject."""
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
