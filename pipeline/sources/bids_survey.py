"""Survey of a BIDS dataset: every image as a T1w to take, one left out, or another kind."""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.labels.scan_records import ScanRecord, prefixed, walk
from pipeline.sources.bids_choice import ImageChoice, suffix_of
from pipeline.sources.file_kinds import FOREIGN, image_format
from schemas.manifest import SELECTION, QuarantineRow

log = logging.getLogger(__name__)


@dataclass
class Survey:
    """The images of a BIDS dataset."""

    root: Path
    choice: ImageChoice
    images: list[Path] = field(default_factory=list)
    """T1w that may be taken."""
    left: list[tuple[Path, str]] = field(default_factory=list)
    """T1w that are left out on purpose, with the reason."""
    faults: list[tuple[Path, str]] = field(default_factory=list)
    """T1w that cannot be taken as they are named or where they lie."""
    with_t1w: set[str] = field(default_factory=set)
    """Subjects that have a T1w of their own, taken or not."""
    subjects: set[str] = field(default_factory=set)
    """Subjects that have a folder."""
    kinds: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """(subject, session) → suffix → images of other kinds."""

    def add(self, path: Path, subject: str) -> None:
        """Add one image of a subject's folder to the list that it belongs to."""
        suffix, choice = suffix_of(path), self.choice
        is_t1w = suffix.lower() in {taken.lower() for taken in choice.suffixes}
        if not is_t1w:
            session = next((p for p in path.parts[::-1] if p.startswith("ses-")), "")
            self.kinds[subject, prefixed("ses", session)][suffix] += 1
            return
        self.with_t1w.add(subject)
        if suffix not in choice.suffixes:
            right = next(s for s in choice.suffixes if s.lower() == suffix.lower())
            self.faults.append((path, f"suffix _{suffix}, expected _{right}; rename it"))
        elif path.parent.name != "anat":
            self.faults.append((path, f"lies in {path.parent.name}, expected in anat; move it"))
        elif choice.is_part(path):
            self.left.append((path, "a phase, real or imaginary part, no magnitude"))
        elif not choice.takes(path):
            suffix = image_format(path.name) or ""
            remedy = FOREIGN.get(suffix, "convert it")
            self.faults.append((path, f"{suffix}, expected .nii or .nii.gz in BIDS; {remedy}"))
        elif not choice.fits(path):
            self.left.append((path, "does not fit cohort.bids_filter"))
        else:
            self.images.append(path)

    def lacking(self, people: Iterable[str], records: Iterable[ScanRecord]) -> list[QuarantineRow]:
        """Return quarantine rows of subjects, and of sessions, that have no record."""
        have = {(record.subject_id, record.session_id) for record in records}
        subjects = {subject for subject, _ in have}
        listed = set(people)
        rows = []
        for name in sorted((listed | self.subjects) - subjects):
            start = "listed in participants.tsv, but no" if name in listed else "no"
            kinds = sum((c for (s, _), c in self.kinds.items() if s == name), Counter[str]())
            reason = f"{start} {self._wanted} image was found{self._hint(kinds)}"
            if name in self.with_t1w and any(self._of(p, name) for p, _ in self.faults + self.left):
                why = next(w for p, w in self.faults + self.left if self._of(p, name))
                reason = f"{start} {self._wanted} image could be taken: {why}"
            rows.append(_row(name, self.root / name, reason, "cohort"))
        for (subject, session), kinds in sorted(self.kinds.items()):
            if subject in subjects and session and (subject, session) not in have:
                reason = f"no {self._wanted} image in this session{self._hint(kinds)}"
                where = self.root / subject / session
                rows.append(_row(f"{subject}_{session}", where, reason, SELECTION))
        return rows

    def _of(self, path: Path, subject: str) -> bool:
        return prefixed("sub", path.relative_to(self.root).parts[0]) == subject

    @property
    def _wanted(self) -> str:
        return " or ".join(self.choice.suffixes)

    def _hint(self, kinds: Counter[str]) -> str:
        if kinds["UNIT1"] and "UNIT1" not in self.choice.suffixes:
            return "; it has UNIT1 of MP2RAGE: take that with --set cohort.suffix='[T1w, UNIT1]'"
        listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(4))
        return f" (there are {listed})" if listed else ""


def survey_images(
    root: Path, choice: ImageChoice, subjects: Collection[str] | None = None
) -> Survey:
    """Return the images below the `sub-…` folders of a BIDS dataset, links followed.

    With `subjects` (sub-<label>), other folders are not looked into.
    """
    survey = Survey(root, choice)
    for folder in sorted(p for p in root.glob("sub-*") if p.is_dir()):
        subject = prefixed("sub", folder.name)
        if subjects is not None and subject not in subjects:
            continue
        survey.subjects.add(subject)
        closed: list[tuple[Path, str]] = []
        for below, names in walk(folder, closed):
            for name in names:
                if image_format(name) and not name.startswith("."):
                    survey.add(below / name, subject)
        survey.faults += closed
    others: Counter[str] = sum(survey.kinds.values(), Counter[str]())
    if others:
        listed = ", ".join(f"{kind} {count}" for kind, count in others.most_common(8))
        log.info("%s: images of other kinds, not taken: %s", root, listed)
    return survey


def _row(scan_id: str, path: Path, reason: str, stage: str) -> QuarantineRow:
    return {"scan_id": scan_id, "path": str(path), "stage": stage, "reason": reason}
