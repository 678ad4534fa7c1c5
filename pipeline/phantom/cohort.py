"""Write the phantom cohort as a BIDS dataset with its ground truth."""

import gzip
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from pipeline.phantom.atlas import Atlas, build_atlas, open_atlas, write_atlas
from pipeline.phantom.scanner import Affine, make_shape, scan, true_volumes
from pipeline.phantom.subjects import Subject, Visit, make_subject, make_visits
from pipeline.runtime.digests import digest_file, digest_of
from pipeline.runtime.files import write_atomic, write_json
from pipeline.runtime.progress import progress
from schemas.manifest import VOLUMES
from schemas.params import PhantomParams

RECIPE = 2
"""Version of the phantom; raised when the same params give other images."""

TRUTH_COLUMNS = (
    "scan_id",
    "subject_id",
    "session_id",
    *VOLUMES,
    "atrophy",
    "age_years",
    "sex",
    "diagnosis",
    "months_from_first",
)
"""Columns of derivatives/truth/truth.tsv, one row a scan; then `site` and `focal`, if there."""

LATER_OPTIONS = ("overlap", "sex_overlap", "focal", "scanners", "travelling")
"""Options of the cohort that decide the bytes of a scan, beside those that always did."""

Row = dict[str, str | float | int]


def make_phantom_cohort(out: Path, params: PhantomParams, *, workers: int = 1) -> Path:
    """Write `params.subjects` synthetic people as BIDS below `out`; return `out`.

    Images are int16 NIfTI; derivatives/truth/truth.tsv holds the ground truth of each. Complete
    scans of an earlier run with the same params are kept. A subject depends on the cohort seed and
    its own number alone.

    Parameters
    ----------
    out
        Folder of the dataset; created if needed.
    params
        Size of the cohort, voxel size, share of people with follow-ups, seed.
    workers
        Processes, one thread each.
    """
    subjects = [make_subject(number, params) for number in range(1, params.subjects + 1)]
    visits = [visit for subject in subjects for visit in make_visits(subject)]
    fingerprints = {visit.scan_id: _fingerprint(visit, params) for visit in visits}
    truths = {v.scan_id: _finished(out, v, fingerprints[v.scan_id]) for v in visits}
    waiting = [visit for visit in visits if truths[visit.scan_id] is None]
    for visit, truth in _make_scans(out, waiting, params, fingerprints, workers):
        truths[visit.scan_id] = truth
    _write_tables(out, subjects, visits, {k: t for k, t in truths.items() if t is not None})
    return out


def image_path(out: Path, visit: Visit) -> Path:
    """Return the path of the image of a visit."""
    folder = out / visit.subject.subject_id / visit.session_id / "anat"
    return folder / f"{visit.scan_id}_T1w.nii.gz"


def _record_path(out: Path, visit: Visit) -> Path:
    return out / "derivatives" / "truth" / "scans" / f"{visit.scan_id}.json"


def _fingerprint(visit: Visit, params: PhantomParams) -> str:
    """Return the digest of everything that decides the bytes of a scan."""
    # Options at their defaults are left out, so that finished scans of old cohorts stay good.
    asked = params.model_dump(include=set(LATER_OPTIONS), exclude_defaults=True)
    later = [asked] if asked else []
    return digest_of([RECIPE, params.seed, params.zooms, params.masks, visit.scan_id, *later])


def _finished(out: Path, visit: Visit, fingerprint: str) -> dict[str, float] | None:
    """Return the true volumes of a scan that is complete and up to date, else None."""
    image, record = image_path(out, visit), _record_path(out, visit)
    if not (image.is_file() and record.is_file()):
        return None
    try:
        content = json.loads(record.read_text())
    except json.JSONDecodeError:
        return None
    if content.get("fingerprint") != fingerprint or content.get("image") != digest_file(image):
        return None
    return {name: float(content["volumes"][name]) for name in VOLUMES}


def _make_scans(
    out: Path,
    visits: list[Visit],
    params: PhantomParams,
    fingerprints: dict[str, str],
    workers: int,
) -> Iterator[tuple[Visit, dict[str, float]]]:
    """Make scans, in this process or in several, and yield each with its true volumes."""
    if not visits:
        return
    atlas = build_atlas(zooms=params.zooms)
    with _workers(atlas, min(workers, len(visits))) as run:
        jobs = [(out, visit, params, fingerprints[visit.scan_id]) for visit in visits]
        yield from progress(run(jobs), total=len(jobs), label="phantom heads")


Job = tuple[Path, Visit, PhantomParams, str]
Done = tuple[Visit, dict[str, float]]


@contextmanager
def _workers(atlas: Atlas, workers: int) -> Iterator[Callable[[list[Job]], Iterable[Done]]]:
    """Yield a function that runs jobs and yields their results as they are done."""
    if workers <= 1:
        yield lambda jobs: (_make(atlas, *job) for job in jobs)
        return
    with tempfile.TemporaryDirectory(prefix="phantom-") as folder:
        write_atlas(atlas, Path(folder))
        with ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=torch.set_num_threads,
            initargs=(1,),
        ) as pool:

            def run(jobs: list[Job]) -> Iterator[Done]:
                futures = [pool.submit(_make_in_worker, Path(folder), *job) for job in jobs]
                try:
                    for future in as_completed(futures):
                        yield future.result()
                finally:
                    pool.shutdown(wait=True, cancel_futures=True)

            yield run


@cache
def _opened(folder: Path) -> Atlas:
    return open_atlas(folder)


def _make_in_worker(
    folder: Path, out: Path, visit: Visit, params: PhantomParams, fingerprint: str
) -> Done:
    return _make(_opened(folder), out, visit, params, fingerprint)


def _make(atlas: Atlas, out: Path, visit: Visit, params: PhantomParams, fingerprint: str) -> Done:
    """Make one scan; its JSON is written last, so an unfinished scan never counts."""
    shape = make_shape(visit, atlas)
    volumes = true_volumes(visit, shape, atlas)
    image, affine, mask = scan(visit, shape, atlas, zooms=params.zooms)
    path = image_path(out, visit)
    _write_nifti(path, image, affine)
    if params.masks:
        masks = out / "derivatives" / "truth" / visit.subject.subject_id / visit.session_id / "anat"
        _write_nifti(masks / f"{visit.scan_id}_desc-brain_mask.nii.gz", mask, affine)
    write_json(
        _record_path(out, visit),
        {
            "fingerprint": fingerprint,
            "image": digest_file(path),
            "volumes": volumes,
            "amplitudes": visit.amplitudes,
        },
    )
    return visit, volumes


def _write_nifti(path: Path, array: np.ndarray, affine: Affine) -> None:
    """Write a gzipped NIfTI whose bytes depend on its content alone."""
    image_class: Any = nib.Nifti1Image  # nibabel has no types for what follows
    image = image_class(array, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    write_atomic(path, gzip.compress(image.to_bytes(), compresslevel=3, mtime=0))


def _table(columns: tuple[str, ...], rows: list[Row]) -> str:
    lines = ["\t".join(columns)]
    for row in rows:
        cells = (row[c] for c in columns)
        lines.append("\t".join(f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells))
    return "\n".join(lines) + "\n"


def _write_tables(
    out: Path,
    subjects: list[Subject],
    visits: list[Visit],
    truths: dict[str, dict[str, float]],
) -> None:
    """Write the dataset's description, people, sessions and ground truth."""
    write_json(
        out / "dataset_description.json",
        {
            "Name": "Phantom cohort: SYNTHETIC heads grown from the ICBM152 template, no patients",
            "BIDSVersion": "1.8.0",
            "DatasetType": "raw",
            "Authors": ["generated by the `pipeline cohort` command"],
        },
    )
    write_json(
        out / "derivatives" / "truth" / "dataset_description.json",
        {
            "Name": "Ground truth of the phantom cohort (synthetic)",
            "BIDSVersion": "1.8.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "pipeline cohort", "Version": str(RECIPE)}],
        },
    )
    people: list[Row] = [
        {
            "participant_id": s.subject_id,
            "age": s.age_years,
            "sex": s.sex,
            "diagnosis": s.diagnosis,
        }
        for s in subjects
    ]
    columns = ("participant_id", "age", "sex", "diagnosis")
    write_atomic(out / "participants.tsv", _table(columns, people))
    later = tuple(_later_labels(visits[0]))
    truth_rows: list[Row] = []
    for subject in subjects:
        sessions: list[Row] = []
        for visit in (v for v in visits if v.subject.subject_id == subject.subject_id):
            course: Row = {
                "session_id": visit.session_id,
                "diagnosis": visit.diagnosis,
                "months_from_first": visit.months,
                **_later_labels(visit),
            }
            sessions.append({**course, "age": visit.age_years})
            truth_rows.append(
                {
                    **course,
                    **truths[visit.scan_id],
                    "scan_id": visit.scan_id,
                    "subject_id": subject.subject_id,
                    "sex": subject.sex,
                    "atrophy": round(visit.atrophy, 4),
                    "age_years": visit.age_years,
                }
            )
        of_session = ("session_id", "age", "months_from_first", "diagnosis", *later)
        path = out / subject.subject_id / f"{subject.subject_id}_sessions.tsv"
        write_atomic(path, _table(of_session, sessions))
    truth = out / "derivatives" / "truth" / "truth.tsv"
    write_atomic(truth, _table(TRUTH_COLUMNS + later, truth_rows))


def _later_labels(visit: Visit) -> Row:
    """Return the labels that only cohorts with scanners or dark spots have."""
    labels: Row = {}
    if visit.scanner:
        labels["site"] = visit.scanner.name
    if visit.subject.focal is not None:
        labels["focal"] = "yes" if visit.subject.focal else "no"
    return labels
