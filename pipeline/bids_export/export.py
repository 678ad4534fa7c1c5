"""Write a study as BIDS-Derivatives, participant by participant."""

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.bids_export import pages, tables
from pipeline.bids_export.counterfactuals import export_counterfactuals
from pipeline.bids_export.dataset import describe, write_json_once
from pipeline.bids_export.names import ScanNames
from pipeline.bids_export.scan_files import ScanTask, write_scan
from pipeline.bids_export.study import QC_COLUMNS, Study, StudyFiles
from pipeline.labels.scan_records import read_table
from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import lock_store, write_atomic, writing_to
from pipeline.runtime.progress import progress
from schemas.errors import PipelineError

log = logging.getLogger(__name__)

TABLE_PATIENCE_S = 120.0
"""How long the tables are waited for while other calls write their participants."""
YSEM, QC = "ldae_ysem", "ldae_qc"


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """Numbers of one call."""

    scans: int
    """Scans of the study in the dataset."""
    written: int
    """Scans written now; the others were there."""
    counterfactuals: int
    failed: tuple[str, ...]
    """Participants that could not be written."""


def export_bids(
    files: StudyFiles,
    out: Path,
    *,
    counterfactuals: Sequence[Path] = (),
    workers: int = 1,
    max_bytes: int = 2_000_000_000,
) -> ExportSummary:
    """Write images, masks, transforms, tables and pages of a study as BIDS-Derivatives.

    Every file is written whole or not at all; a scan's sidecar and a participant's page come last,
    so that a stopped call goes on where it was. What is up to date is left alone. Scans of other
    calls to the same dataset stay. One participant that cannot be written never stops the others.

    Parameters
    ----------
    counterfactuals
        Folders that `pipeline manipulate` wrote.
    max_bytes
        Largest image (bytes) that is read for a picture.

    Raises
    ------
    ContractError
        If the study is not whole, or `out` is no place for a derivative.
    """
    study = Study(files)
    describe(out, files.source)
    semantics = _tool_of_semantics(study)
    tables.check_same_tool(out, QC, _tool_of_quality(study))
    if semantics is not None:
        tables.check_same_tool(out, YSEM, semantics)
    out = out.absolute()
    tasks = study.tasks(out, max_bytes)
    todo = {p: scans for p, scans in tasks.items() if not is_written(p, scans)}
    failed = []
    with writing_to(out):
        for participant, fault in progress(
            _write_all(todo, workers), total=len(todo), label="BIDS"
        ):
            if fault is not None:
                log.warning("%s: %s", participant, fault)
                failed.append(participant)
        made = sum(
            export_counterfactuals(folder, out, study.exported, study.sources())
            for folder in counterfactuals
        )
        with lock_store(out / "tables", patience=TABLE_PATIENCE_S):
            _write_tables(study, out, semantics)
    return ExportSummary(
        scans=sum(map(len, tasks.values())),
        written=sum(len(scans) for p, scans in todo.items() if p not in failed),
        counterfactuals=made,
        failed=tuple(failed),
    )


def is_written(participant: str, scans: Sequence[ScanTask]) -> bool:
    """Return whether all files of a participant are there, as they would be written now."""
    out = scans[0].out
    return pages.is_current(out, participant, _key(scans)) and all(s.is_written() for s in scans)


def _key(scans: Sequence[ScanTask]) -> str:
    return digest_of([scan.key for scan in scans])


def _write_all(todo: dict[str, list[ScanTask]], workers: int) -> Iterator[tuple[str, str | None]]:
    """Yield every participant as it is written, with what went wrong."""
    if workers <= 1 or len(todo) <= 1:
        yield from (_write_participant(scans) for scans in todo.values())
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(todo)), mp_context=context) as pool:
        yield from pool.map(_write_participant, todo.values())


def _write_participant(scans: list[ScanTask]) -> tuple[str, str | None]:
    """Write the scans of a participant, then its page; return it and what went wrong."""
    participant, out = scans[0].names.participant, scans[0].out
    try:
        shown = [pages.ShownScan(task.names, task.qc, write_scan(task)) for task in scans]
        pages.write_participant(out, participant, shown, _key(scans))
    except PipelineError as error:
        return participant, str(error)
    return participant, None


def _write_tables(study: Study, out: Path, semantics: dict[str, str] | None) -> None:
    """Write participants.tsv, phenotype/, the group's page and the study's report."""

    def has_folder(participant: str) -> bool:
        return (out / participant).is_dir()

    exported = study.exported
    known = {n.participant for n in exported.values() if has_folder(n.participant)}
    source = study.files.source
    people = None if source is None else tables.carried(source, known, [*study.files.leave_out])
    if people is None:
        source, people = None, tables.participants(study.manifest, exported)
    tables.merge_table(out / "participants.tsv", people, has_folder)
    columns = [str(name) for name in people.columns]
    described = tables.describe_participants(columns, source)
    write_json_once(out / "participants.json", described)
    judged = [(study.names[s], study.qc_of(s)) for s in study.qc.index if s in study.names]
    if judged:
        tool = _tool_of_quality(study)
        tables.write_phenotype(out, QC, judged, tool=tool, columns=QC_COLUMNS, keep=has_folder)
    if semantics is not None:
        rows, names = _codes(study)
        tables.write_phenotype(out, YSEM, rows, tool=semantics, columns=names, keep=has_folder)
    report = study.files.report
    if report.is_file():
        write_atomic(out / "report.html", report.read_bytes())
    pages.write_group(out, _group_rows(out), study_report=(out / "report.html").is_file())


def _tool_of_quality(study: Study) -> dict[str, str]:
    tool = "Quality control of ldae-pipeline's preprocessing"
    return {"Description": tool + _of_contrast(study)}


def _of_contrast(study: Study) -> str:
    """Return words for images that are no T1w, so that tables of two contrasts never mix."""
    contrast = study.volumes.attributes.contrast
    return "" if contrast == "T1w" else f", {contrast} images"


def _tool_of_semantics(study: Study) -> dict[str, str] | None:
    if study.semantics is None:
        return None
    digest = study.semantics.attributes.digests.get("ldae", "")
    return {
        "Description": f"Semantic code of a latent diffusion autoencoder, sha256 {digest[:16]}"
        + _of_contrast(study),
    }


def _codes(study: Study) -> tuple[list[tuple[ScanNames, dict[str, object]]], dict[str, str]]:
    """Return y_sem of every exported scan, and what its columns hold."""
    assert study.semantics is not None
    y_sem = study.semantics.read("y_sem")
    digits = len(str(y_sem.shape[1] - 1))
    columns = {
        f"ysem_{i:0{digits}d}": f"number {i} of y_sem, the semantic code (no unit)"
        for i in range(y_sem.shape[1])
    }
    exported = study.exported
    rows: list[tuple[ScanNames, dict[str, object]]] = [
        (exported[scan], dict(zip(columns, (f"{v:.9g}" for v in y_sem[row]), strict=True)))
        for scan, row in study.semantics.row_of.items()
        if scan in exported
    ]
    return rows, columns


def _group_rows(out: Path) -> list[dict[str, Any]]:
    """Return the rows of the group's page, from the tables: scans of other calls too."""
    rows = []
    for path in sorted((out / "phenotype").glob(f"{QC}*.tsv")):
        table = read_table(path)
        for row in table.to_dict("records"):
            participant = str(row[tables.ID])
            cells = {str(k): None if pd.isna(v) else v for k, v in row.items()}
            rows.append(
                {"participant": participant, "scan": participant + path.stem.removeprefix(QC)}
                | {name: cells.get(name) for name in ("status", "reasons", "brain_ml", "ncc")}
            )
    return sorted(rows, key=lambda row: str(row["scan"]))
