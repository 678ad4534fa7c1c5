"""A manifest of raw heads → volumes.zarr, a QC table and a quarantine list."""

import io
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import __version__
from pipeline.cohort.candidates import Candidate
from pipeline.preprocessing.finished_scans import Record, Staging
from pipeline.preprocessing.next_image import Trials, with_notes
from pipeline.preprocessing.qc_overrides import BY_HAND, Override
from pipeline.preprocessing.scan_task import (
    Task,
    fingerprint,
    run_all,
)
from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import lock_store, write_atomic
from pipeline.runtime.progress import counted, progress
from pipeline.stores.builder import check_target
from pipeline.stores.open_store import OpenStore, is_current
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import VolumeRow, VolumeStore, open_volumes, write_volumes
from schemas.changes import changes, listed
from schemas.errors import ContractError
from schemas.manifest import QUARANTINE_COLUMNS, SELECTION
from schemas.params import PreprocessParams
from schemas.stores import StoreAttributes

log = logging.getLogger(__name__)


PASSED = ("pass", "warn")
STEPS = ("read", "strip", "bias", "register", "resample", "qc")


@dataclass(frozen=True, slots=True)
class PreprocessSummary:
    """What one call did."""

    passed: int
    """Scans in the store without a warning."""
    warned: int
    """Scans in the store with a warning."""
    quarantined: int
    """Scans refused, those refused by the cohort stage included."""
    reused: int
    """Scans of the manifest that were not done again."""
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
) -> PreprocessSummary:
    """Preprocess every scan of a manifest; one bad scan never stops the others.

    Finished scans are kept beside the store in `<out>.work` until the store is complete, so a run
    that was stopped at any moment goes on where it was and ends with the same bytes. Scans of an
    earlier complete store are copied where source, parameters and method are the same, and done
    again where they are damaged; a store that has all it should is read but not written.
    `overrides` (scan_id → verdict by hand) stand above the thresholds; a scan without a volume
    stays out. Where an image is refused, the next of `candidates` (scan_id → images) is tried under
    the same scan id, unless the scan is set to `fail`; the QC table has the path and the reason.

    Raises
    ------
    ContractError
        If another process writes the same store, `out` is something else, or no scan passed.
    """
    started = time.monotonic()
    # A folder given as relative must mean the same in every worker process.
    out = out.absolute()
    by_hand = overrides or {}
    trials = Trials(
        candidates or {},
        params,
        lambda task, record: _judge(task, record, params),
        settled={scan_id for scan_id, verdict in by_hand.items() if verdict.status == "fail"},
    )
    following = with_notes(_tasks(manifest, params, manifest_dir), trials.candidates)
    scan_ids, reused = [task.scan_id for task in following], 0
    with lock_store(out):
        check_target(out, "volumes")
        staging, ledger = Staging(out), _Ledger(out)
        while following:
            records = _known(following, staging, ledger, trials, by_hand)
            todo = [task for task in following if task.scan_id not in records]
            # An id may be made of a file's name; a warning names what the user has.
            files = {task.scan_id: f"{task.scan_id} ({task.path})" for task in todo}
            if records and not trials.tried:
                reused = len(records)
                log.info("%d of %d scans were done before", reused, len(following))
            if todo and not trials.tried and ledger.store is not None and not ledger.is_of(params):
                tell_other_preprocessing(ledger.store, params)
            runs = run_all(todo, params, out, workers=workers, scheduler=scheduler)
            for record in progress(runs, total=len(todo), label="Preprocess"):
                records[record["scan_id"]] = record
                if "error" in record:
                    log.warning("%s: %s", files[record["scan_id"]], record["error"])
            following = trials.next_round(following, records)
            if following:
                log.info("%s: the next image is tried", counted(len(following), "scan"))
        tasks = [trials.outcome(scan_id)[0] for scan_id in scan_ids]
        table = _qc_table(trials, scan_ids, params, by_hand)
        good = [task for task in tasks if table.loc[task.scan_id, "status"] in PASSED]
        refused = _quarantine(table, prior_quarantine)
        write_table(table.reset_index(), qc_csv)
        write_table(refused, quarantine_csv)
        if not good:
            raise ContractError(f"{out}: no scan passed; the reasons are in {quarantine_csv}")
        attributes = _attributes(good, params)
        if ledger.hurt or not is_current(out, attributes):
            write_volumes(out, attributes, _rows(good, staging, ledger))
        ledger.write([record for scan_id in scan_ids for _, record in trials.tried[scan_id]])
        staging.remove()
    counts = table["status"].value_counts()
    return PreprocessSummary(
        passed=int(counts.get("pass", 0)),
        warned=int(counts.get("warn", 0)),
        quarantined=int((refused["stage"] != SELECTION).sum()),
        reused=reused,
        seconds=time.monotonic() - started,
    )


class _Ledger:
    """The records of the complete store at `out`, and its rows that are sound."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(out.name + ".records.json")
        self.store: VolumeStore | None = None
        self.rows: dict[str, int] = {}
        self.hurt: dict[str, str] = {}
        try:
            self.store = open_volumes(out)
            # A missing shard reads as black volumes.
            self.hurt = verify_store(out)
            self.rows = {
                fingerprint: row
                for fingerprint, row in self.store.fingerprint_rows().items()
                if self.store.attributes.scan_ids[row] not in self.hurt
            }
            if self.hurt:
                log.warning("%s: %d scans are damaged; preprocessed again", out, len(self.hurt))
        except ContractError:
            if out.exists():
                log.warning("%s: not usable as it is, made anew", out)
        try:
            content = json.loads(self.path.read_text())
        except (OSError, ValueError):
            content = []
        self.records: dict[tuple[str, str], Record] = {
            (record["scan_id"], record["fingerprint"]): record for record in content
        }

    def write(self, records: list[Record]) -> None:
        """Keep the records; transient errors are left out, so that they are tried again."""
        kept = [record for record in records if not record.get("transient")]
        write_atomic(self.path, "[\n" + ",\n".join(json.dumps(r) for r in kept) + "\n]\n")

    def is_of(self, params: PreprocessParams) -> bool:
        """Tell whether the store's volumes were made with these parameters and this method."""
        assert self.store is not None
        return self.store.attributes.digests.get("preprocessing") == _digest(params)

    def holds(self, task: Task) -> bool:
        """Tell whether the store has this scan's volume, undamaged."""
        return task.fingerprint in self.rows

    def read_row(self, task: Task) -> VolumeRow:
        """Read this scan's volume."""
        assert self.store is not None
        return self.store.read_row(self.rows[task.fingerprint])


def _tasks(manifest: pd.DataFrame, params: PreprocessParams, manifest_dir: Path) -> list[Task]:
    folder = manifest_dir.absolute()
    return [
        Task(
            scan_id=str(row["scan_id"]),
            path=str(folder / str(row["path"])),
            source_digest=str(row["source_digest"]),
            fingerprint=fingerprint(str(row["source_digest"]), params),
        )
        for row in manifest.to_dict("records")
    ]


def _known(
    tasks: list[Task],
    staging: Staging,
    ledger: _Ledger,
    trials: Trials,
    overrides: Mapping[str, Override],
) -> dict[str, Record]:
    """Return the records of images that need no work.

    A volume is needed of an image that passes, and of a scan's first one that a verdict by hand
    lets pass, unless a further image of the scan passed before.
    """
    records: dict[str, Record] = {}
    for task in tasks:
        record = staging.read_record(task.scan_id, task.fingerprint)
        if record is None:
            record = ledger.records.get((task.scan_id, task.fingerprint))
            if record is not None and not ledger.holds(task):
                judged = trials.judge(task, record)
                by_hand = _overridden(judged, overrides.get(task.scan_id))[0] in PASSED
                first = by_hand and task.scan_id not in trials.tried
                needed = judged[0] in PASSED or (
                    first and not trials.has_passing(task, ledger.records, ledger.rows)
                )
                record = None if needed else record
        if record is not None:
            records[task.scan_id] = record
    return records


def _judge(task: Task, record: Record, params: PreprocessParams) -> tuple[str, str]:
    """Return status and reasons of a record under today's thresholds."""
    from pipeline.imaging.qc import judge

    if "error" in record:
        return "error", str(record["error"])
    rigid = params.registration == "rigid"
    notes = (*filter(None, [task.note]), *record["notes"])
    verdict = judge(record["qc"], notes, params.qc, rigid=rigid)
    return verdict.status, "; ".join(verdict.reasons)


def _overridden(judged: tuple[str, str], override: Override | None) -> tuple[str, str]:
    """Return status and reasons after a verdict by hand; what has no volume stays an error."""
    status, reasons = judged
    if override is None or status == "error":
        return judged
    return override.status, "; ".join([f"{BY_HAND}: {override.reason}", *filter(None, [reasons])])


def _qc_table(
    trials: Trials, scan_ids: list[str], params: PreprocessParams, overrides: Mapping[str, Override]
) -> pd.DataFrame:
    """Return one row a scan, indexed by scan_id."""
    from pipeline.imaging.qc import NUMBERS

    rows: list[dict[str, Any]] = []
    for scan_id in scan_ids:
        task, record, others = trials.outcome(scan_id)
        judged, override = _judge(task, record, params), overrides.get(scan_id)
        if others:
            reasons = "; ".join(filter(None, (judged[1], others)))
            judged = ("warn" if judged[0] == "pass" else judged[0], reasons)
        status, reasons = _overridden(judged, override)
        if override is not None and judged[0] == "error" and override.status != "fail":
            log.warning("%s: set to %s, but it has no volume", task.scan_id, override.status)
        qc, timings = record.get("qc", {}), record.get("timings", {})
        rows.append(
            {"scan_id": task.scan_id, "status": status, "reasons": reasons, "measured": judged[0]}
            | {name: qc.get(name) for name in (*NUMBERS, "strip_method", "wide_search")}
            | {f"{step}_cpu_s": timings.get(step) for step in STEPS}
            | {"path": task.path}
        )
    return pd.DataFrame(rows).set_index("scan_id")


def _quarantine(table: pd.DataFrame, prior: pd.DataFrame) -> pd.DataFrame:
    bad = table[~table["status"].isin(["pass", "warn"])]
    rows = [
        {"scan_id": scan_id, "path": row["path"], "stage": "preprocess", "reason": row["reasons"]}
        for scan_id, row in bad.iterrows()
    ]
    new = pd.DataFrame(rows, columns=list(QUARANTINE_COLUMNS))
    if prior.empty:
        return new
    return pd.concat([prior.reindex(columns=list(QUARANTINE_COLUMNS)), new], ignore_index=True)


def _digest(params: PreprocessParams) -> str:
    from pipeline.imaging.preprocess_scan import METHOD_VERSION

    return digest_of([params.content(), METHOD_VERSION])


def _attributes(tasks: list[Task], params: PreprocessParams) -> StoreAttributes:
    from pipeline.imaging.template import mni_grid

    return StoreAttributes(
        kind="volumes",
        made_by=f"ldae-pipeline {__version__}",
        params={"preprocess": params.recorded()},
        digests={"preprocessing": _digest(params)},
        grid=mni_grid(params.grid),
        scan_ids=[task.scan_id for task in tasks],
        fingerprints=[task.fingerprint for task in tasks],
    )


def _rows(tasks: list[Task], staging: Staging, ledger: _Ledger) -> Iterator[VolumeRow]:
    """Yield the volumes in order, from the work folder or from the store before."""
    for task in tasks:
        record = staging.read_record(task.scan_id, task.fingerprint)
        if record is not None and "qc" in record:
            yield staging.read_row(task.scan_id, task.fingerprint)
        else:
            yield ledger.read_row(task)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV whole or not at all."""
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n", float_format="%.5g")
    write_atomic(path, text.getvalue())


def tell_other_preprocessing(store: OpenStore, params: PreprocessParams) -> None:
    """Warn that all scans of a volume store are done again, and of the parameters that differ."""
    recorded = store.attributes.params.get("preprocess", {})
    own = params.content()
    found = changes({key: recorded[key] for key in own if key in recorded}, own)
    why = listed(found) if found else "another version of the method"
    log.warning("%s: preprocessed otherwise (%s); every scan is done again", store.path, why)
