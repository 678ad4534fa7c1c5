"""The next image of a scan, where the first is refused."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.cohort.candidates import Candidate
from pipeline.preprocessing.finished_scans import ScanOutcome
from pipeline.preprocessing.scan_task import Task, fingerprint
from pipeline.runtime.digests import digest_image
from schemas.params import PreprocessParams

Verdict = tuple[str, str]
"""Status and reasons."""


def with_notes(tasks: Sequence[Task], candidates: Mapping[str, list[Candidate]]) -> list[Task]:
    """Return the tasks with what candidates.csv says about the image of each."""
    notes = {(scan, c.path): c.note for scan, images in candidates.items() for c in images}
    return [replace(task, note=notes.get((task.scan_id, task.path), "")) for task in tasks]


@dataclass
class Trials:
    """Every scan's images in turn until one passes: which are done, and which is next."""

    candidates: Mapping[str, list[Candidate]]
    params: PreprocessParams
    assess: Callable[[Task, ScanOutcome], Verdict]
    """Status and reasons of an image by its measurements; a verdict by hand is about the scan."""
    settled: Collection[str] = ()
    """Scans of which no further image is wanted."""
    tried: dict[str, list[tuple[Task, ScanOutcome]]] = field(default_factory=dict)

    def next_round(self, tasks: Sequence[Task], records: Mapping[str, ScanOutcome]) -> list[Task]:
        """Take what came of the tasks; return the next image of each scan that was refused."""
        following = []
        for task in tasks:
            record = records[task.scan_id]
            tried = self.tried.setdefault(task.scan_id, [])
            tried.append((task, record))
            passed = self.assess(task, record)[0] in {"pass", "warn"}
            if not (passed or record.get("transient") or task.scan_id in self.settled):
                following += self._after(task.scan_id, {done.path for done, _ in tried})
        return following

    def has_passing(
        self, task: Task, records: Mapping[tuple[str, str], ScanOutcome], volumes: Collection[str]
    ) -> bool:
        """Tell whether another image of the scan passes by its record and has its volume.

        Parameters
        ----------
        records
            (scan_id, fingerprint) → record of a former run.
        volumes
            Fingerprints of the volumes that are there.
        """
        for candidate in self.candidates.get(task.scan_id, []):
            if candidate.path == task.path:
                continue
            other = self._task_of(task.scan_id, candidate)
            record = records.get((task.scan_id, other.fingerprint))
            if record is None or other.fingerprint not in volumes:
                continue
            if self.assess(other, record)[0] in {"pass", "warn"}:
                return True
        return False

    def _after(self, scan_id: str, done: set[str]) -> list[Task]:
        for candidate in self.candidates.get(scan_id, []):
            if candidate.path not in done:
                return [self._task_of(scan_id, candidate)]
        return []

    def _task_of(self, scan_id: str, candidate: Candidate) -> Task:
        try:
            digest = digest_image(Path(candidate.path))
        except OSError:
            digest = ""  # its task says what is wrong with it
        key = fingerprint(digest, self.params)
        return Task(scan_id, candidate.path, digest, key, candidate.note)

    def outcome(self, scan_id: str) -> tuple[Task, ScanOutcome, str]:
        """Return the image that counts, its record, and what to tell of the others.

        It is the last tried where that passed (or will be tried again), else the first.
        """
        *before, last = self.tried[scan_id]
        if not before:
            return *last, ""
        passed = self.assess(*last)[0] in {"pass", "warn"}
        chosen = last if passed else before[0]
        others = [pair for pair in (*before, last) if pair is not chosen]
        told = ", ".join(
            f"{Path(task.path).name} was refused ({_plain(self.assess(task, record)[1])})"
            for task, record in others
        )
        name = Path(chosen[0].path).name
        return *chosen, f"{told}, {name} is taken instead" if passed else f"{told} too"


def _plain(reasons: str) -> str:
    """Return reasons as one: a semicolon parts those of the scan itself."""
    return reasons.replace("; ", ", ")
