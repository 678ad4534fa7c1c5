"""Preprocess the scans of a manifest to volumes.zarr, a QC table and a quarantine list."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from pipeline import __version__
from pipeline.cohort.candidates import Candidate
from pipeline.cohort.contrast import with_contrast
from pipeline.preprocessing.finished_scans import FinishedScans, ScanOutcome
from pipeline.preprocessing.former_volumes import FormerVolumes
from pipeline.preprocessing.next_image import Trials, with_notes
from pipeline.preprocessing.qc_overrides import Override
from pipeline.preprocessing.qc_table import (
    PASSED,
    assess,
    overridden,
    qc_table,
    quarantine_table,
    write_table,
)
from pipeline.preprocessing.scan_task import ScanTask, preprocessing_digest, run_all, tasks_of
from pipeline.runtime.files import lock_store
from pipeline.runtime.progress import counted, progress
from pipeline.stores.builder import check_target
from pipeline.stores.open_store import is_current
from pipeline.stores.volumes import VolumeRow, write_volumes
from schemas.errors import ContractError
from schemas.manifest import SELECTION
from schemas.params import PreprocessParams
from schemas.stores import StoreAttributes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreprocessSummary:
    """Numbers of scans and time of one call."""

    passed: int
    """Scans in the store without a warning."""
    warned: int
    """Scans in the store with a warning."""
    quarantined: int
    """Scans refused, including those of the cohort stage."""
    reused: int
    """Scans of the manifest that were finished before."""
    seconds: float
    """Wall time of the call."""


def preprocess_cohort(
    manifest: pd.DataFrame,
    params: PreprocessParams,
    *,
    manifest_dir: Path,
    out: Path,
    qc_csv: Path,
    quarantine_csv: Path,
    prior_quarantine: pd.DataFrame,
    workers: int,
    scheduler: str | None = None,
    overrides: Mapping[str, Override] | None = None,
    candidates: Mapping[str, list[Candidate]] | None = None,
    device: str = "cpu",
) -> PreprocessSummary:
    """Preprocess every scan of a manifest; one bad scan never stops the others.

    Finished scans are kept beside the store in `<out>.work` until the store is complete, so a run
    that was stopped at any moment goes on where it was and ends with the same bytes. Scans of an
    earlier complete store are copied if source, parameters and method are the same, and
    preprocessed again if they are damaged; a store that is up to date is not written again.
    `overrides` (scan_id → verdict by hand) go before the thresholds; a scan without a volume stays
    out. If an image is refused, the next of `candidates` (scan_id → images) is tried under the same
    scan id, unless the scan is set to `fail`; the QC table has the path and the reason. Skulls are
    stripped on `device`: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises
    ------
    ContractError
        If another process writes the same store, `out` is something else, or no scan passed.
    """
    started = time.monotonic()
    # A folder given as relative must mean the same in every worker process.
    out = out.absolute()
    params = with_contrast(params, manifest)
    by_hand = overrides or {}
    trials = Trials(
        candidates or {},
        params,
        partial(assess, params=params),
        settled={scan_id for scan_id, verdict in by_hand.items() if verdict.status == "fail"},
    )
    following = with_notes(tasks_of(manifest, params, manifest_dir), trials.candidates)
    scan_ids, reused = [task.scan_id for task in following], 0
    with lock_store(out):
        check_target(out, "volumes")
        finished, former = FinishedScans(out), FormerVolumes(out)
        while following:
            outcomes = _known_outcomes(following, finished, former, trials, by_hand)
            todo = [task for task in following if task.scan_id not in outcomes]
            # An id may be made from a file's name; a warning shows the file too.
            files = {task.scan_id: f"{task.scan_id} ({task.path})" for task in todo}
            if outcomes and not trials.tried:
                reused = len(outcomes)
                log.info("%d of %d scans were done before", reused, len(following))
            if todo and not trials.tried:
                former.warn_of_other_preprocessing(params)
            runs = run_all(todo, params, out, workers=workers, scheduler=scheduler, device=device)
            for outcome in progress(runs, total=len(todo), label="Preprocess"):
                outcomes[outcome["scan_id"]] = outcome
                if "error" in outcome:
                    log.warning("%s: %s", files[outcome["scan_id"]], outcome["error"])
            following = trials.next_round(following, outcomes)
            if following:
                log.info("%s: the next image is tried", counted(len(following), "scan"))
        tasks = [trials.outcome(scan_id)[0] for scan_id in scan_ids]
        table = qc_table(trials, scan_ids, params, by_hand)
        good = [task for task in tasks if table.loc[task.scan_id, "status"] in PASSED]
        refused = quarantine_table(table, prior_quarantine)
        write_table(table.reset_index(), qc_csv)
        write_table(refused, quarantine_csv)
        if not good:
            raise ContractError(f"{out}: no scan passed; the reasons are in {quarantine_csv}")
        attributes = _attributes(good, params)
        if former.damaged or not is_current(out, attributes):
            write_volumes(out, attributes, _rows(good, finished, former))
        former.write_outcomes(
            [outcome for scan_id in scan_ids for _, outcome in trials.tried[scan_id]]
        )
        finished.remove()
    counts = table["status"].value_counts()
    return PreprocessSummary(
        passed=int(counts.get("pass", 0)),
        warned=int(counts.get("warn", 0)),
        quarantined=int((refused["stage"] != SELECTION).sum()),
        reused=reused,
        seconds=time.monotonic() - started,
    )


def _known_outcomes(
    tasks: list[ScanTask],
    finished: FinishedScans,
    former: FormerVolumes,
    trials: Trials,
    overrides: Mapping[str, Override],
) -> dict[str, ScanOutcome]:
    """Return the outcomes of images that need not be preprocessed.

    An image needs its volume if it passes, or if it is a scan's first one and passes by a verdict
    by hand, unless a further image of the scan passed before.
    """
    outcomes: dict[str, ScanOutcome] = {}
    for task in tasks:
        outcome = finished.read_outcome(task.scan_id, task.fingerprint)
        if outcome is None:
            outcome = former.outcomes.get((task.scan_id, task.fingerprint))
            if outcome is not None and not former.holds(task):
                verdict = trials.assess(task, outcome)
                by_hand = overridden(verdict, overrides.get(task.scan_id))[0] in PASSED
                first = by_hand and task.scan_id not in trials.tried
                needed = verdict[0] in PASSED or (
                    first and not trials.has_passing(task, former.outcomes, former.rows)
                )
                outcome = None if needed else outcome
        if outcome is not None:
            outcomes[task.scan_id] = outcome
    return outcomes


def _attributes(tasks: list[ScanTask], params: PreprocessParams) -> StoreAttributes:
    from pipeline.imaging.atlas.mni152 import mni_grid

    return StoreAttributes(
        kind="volumes",
        made_by=f"ldae-pipeline {__version__}",
        params={"preprocess": params.recorded()},
        digests={"preprocessing": preprocessing_digest(params)},
        grid=mni_grid(params.grid),
        scan_ids=[task.scan_id for task in tasks],
        fingerprints=[task.fingerprint for task in tasks],
    )


def _rows(
    tasks: list[ScanTask], finished: FinishedScans, former: FormerVolumes
) -> Iterator[VolumeRow]:
    """Yield the volumes in order, from the work folder or from the former store."""
    for task in tasks:
        outcome = finished.read_outcome(task.scan_id, task.fingerprint)
        if outcome is not None and "qc" in outcome:
            yield finished.read_row(task.scan_id, task.fingerprint)
        else:
            yield former.read_row(task)
