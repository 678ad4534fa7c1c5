"""Try the next image of a scan if the first is refused."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.cohort.candidates import Candidate
from pipeline.preprocessing.finished_scans import ScanOutcome
from pipeline.preprocessing.scan_task import ScanTask, fingerprint
from pipeline.runtime.digests import digest_image
from schemas.params import PreprocessParams

Verdict = tuple[str, str]
"""Status and reasons."""


def with_notes(
    tasks: Sequence[ScanTask], candidates: Mapping[str, list[Candidate]]
) -> list[ScanTask]:
    """Return the tasks with the notes that candidates.csv has for their images."""
    notes = {(scan, c.path): c.note for scan, images in candidates.items() for c in images}
    return [replace(task, note=notes.get((task.scan_id, task.path), "")) for task in tasks]


@dataclass
class Trials:
    """Trials of each scan's images, one after the other until one passes."""

    candidates: Mapping[str, list[Candidate]]
    params: PreprocessParams
    assess: Callable[[ScanTask, ScanOutcome], Verdict]
    """Function that returns status and reasons of an image; verdicts by hand play no part."""
    settled: Collection[str] = ()
    """Scans of which no further image is tried."""
    tried: dict[str, list[tuple[ScanTask, ScanOutcome]]] = field(default_factory=dict)

    def next_round(
        self, tasks: Sequence[ScanTask], outcomes: Mapping[str, ScanOutcome]
    ) -> list[ScanTask]:
        """Add the outcomes of tasks; return the next image of each scan that was refused."""
        following = []
        for task in tasks:
            outcome = outcomes[task.scan_id]
            tried = self.tried.setdefault(task.scan_id, [])
            tried.append((task, outcome))
            passed = self.assess(task, outcome)[0] in {"pass", "warn"}
            if not (passed or outcome.get("transient") or task.scan_id in self.settled):
                following += self._after(task.scan_id, {done.path for done, _ in tried})
        return following

    def has_passing(
        self,
        task: ScanTask,
        outcomes: Mapping[tuple[str, str], ScanOutcome],
        volumes: Collection[str],
    ) -> bool:
        """Return whether another image of the scan has passed and has a volume.

        Parameters
        ----------
        outcomes
            (scan_id, fingerprint) → outcome of a former run.
        volumes
            Fingerprints of the volumes that exist.
        """
        for candidate in self.candidates.get(task.scan_id, []):
            if candidate.path == task.path:
                continue
            other = self._task_of(task.scan_id, candidate)
            outcome = outcomes.get((task.scan_id, other.fingerprint))
            if outcome is None or other.fingerprint not in volumes:
                continue
            if self.assess(other, outcome)[0] in {"pass", "warn"}:
                return True
        return False

    def _after(self, scan_id: str, done: set[str]) -> list[ScanTask]:
        for candidate in self.candidates.get(scan_id, []):
            if candidate.path not in done:
                return [self._task_of(scan_id, candidate)]
        return []

    def _task_of(self, scan_id: str, candidate: Candidate) -> ScanTask:
        try:
            digest = digest_image(Path(candidate.path))
        except OSError:
            digest = ""  # its task will fail with the reason
        key = fingerprint(digest, self.params)
        return ScanTask(scan_id, candidate.path, digest, key, candidate.note)

    def outcome(self, scan_id: str) -> tuple[ScanTask, ScanOutcome, str]:
        """Return the image that counts, its outcome, and a remark on the others.

        It is the last one tried if that passed (or will be tried again), else the first.
        """
        *before, last = self.tried[scan_id]
        if not before:
            return *last, ""
        passed = self.assess(*last)[0] in {"pass", "warn"}
        chosen = last if passed else before[0]
        others = [pair for pair in (*before, last) if pair is not chosen]
        refused = ", ".join(
            f"{Path(task.path).name} was refused ({_one_reason(self.assess(task, outcome)[1])})"
            for task, outcome in others
        )
        name = Path(chosen[0].path).name
        return *chosen, f"{refused}, {name} is taken instead" if passed else f"{refused} too"


def _one_reason(reasons: str) -> str:
    """Return several reasons as one, since semicolons part the reasons of a scan."""
    return reasons.replace("; ", ", ")
