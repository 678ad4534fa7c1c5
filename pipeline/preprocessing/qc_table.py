"""qc.csv and quarantine.csv: status and reasons of every scan, under the present thresholds."""

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.preprocessing.finished_scans import ScanOutcome
from pipeline.preprocessing.next_image import Trials, Verdict
from pipeline.preprocessing.qc_overrides import BY_HAND, Override
from pipeline.preprocessing.scan_task import ScanTask
from pipeline.runtime.files import write_atomic
from schemas.manifest import QUARANTINE_COLUMNS
from schemas.params import PreprocessParams

log = logging.getLogger(__name__)

PASSED = ("pass", "warn")
STEPS = ("read", "strip", "bias", "register", "resample", "qc")


def assess(task: ScanTask, outcome: ScanOutcome, params: PreprocessParams) -> Verdict:
    """Return status and reasons of an image under the present thresholds."""
    from pipeline.imaging.qc import assess_qc

    if "error" in outcome:
        return "error", str(outcome["error"])
    rigid = params.registration == "rigid"
    notes = (*filter(None, [task.note]), *outcome["notes"])
    contrast = params.contrast or "T1w"
    qc = assess_qc(outcome["qc"], notes, params.qc, rigid=rigid, contrast=contrast)
    return qc.status, "; ".join(qc.reasons)


def overridden(verdict: Verdict, override: Override | None) -> Verdict:
    """Return status and reasons after a verdict by hand; an image without volume stays an error."""
    status, reasons = verdict
    if override is None or status == "error":
        return verdict
    return override.status, "; ".join([f"{BY_HAND}: {override.reason}", *filter(None, [reasons])])


def qc_table(
    trials: Trials, scan_ids: list[str], params: PreprocessParams, overrides: Mapping[str, Override]
) -> pd.DataFrame:
    """Return one row a scan, indexed by scan_id."""
    from pipeline.imaging.qc import NUMBERS

    rows: list[dict[str, Any]] = []
    for scan_id in scan_ids:
        task, outcome, others = trials.outcome(scan_id)
        measured, override = assess(task, outcome, params), overrides.get(scan_id)
        if others:
            reasons = "; ".join(filter(None, (measured[1], others)))
            measured = ("warn" if measured[0] == "pass" else measured[0], reasons)
        status, reasons = overridden(measured, override)
        if override is not None and measured[0] == "error" and override.status != "fail":
            log.warning("%s: set to %s, but it has no volume", task.scan_id, override.status)
        qc, timings = outcome.get("qc", {}), outcome.get("timings", {})
        rows.append(
            {"scan_id": task.scan_id, "status": status, "reasons": reasons, "measured": measured[0]}
            | {name: qc.get(name) for name in (*NUMBERS, "strip_method", "wide_search")}
            | {f"{step}_cpu_s": timings.get(step) for step in STEPS}
            | {"path": task.path}
        )
    return pd.DataFrame(rows).set_index("scan_id")


def quarantine_table(table: pd.DataFrame, prior: pd.DataFrame) -> pd.DataFrame:
    """Return the refused scans of the cohort stage and those of a QC table."""
    bad = table[~table["status"].isin(PASSED)]
    rows = [
        {"scan_id": scan_id, "path": row["path"], "stage": "preprocess", "reason": row["reasons"]}
        for scan_id, row in bad.iterrows()
    ]
    new = pd.DataFrame(rows, columns=list(QUARANTINE_COLUMNS))
    if prior.empty:
        return new
    return pd.concat([prior.reindex(columns=list(QUARANTINE_COLUMNS)), new], ignore_index=True)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV whole or not at all."""
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n", float_format="%.5g")
    write_atomic(path, text.getvalue())
