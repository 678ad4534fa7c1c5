"""What a cross-fitting leaves: the store of out-of-fold codes, and figures about them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from pipeline import __version__
from pipeline.crossfit.embedding import Embedder, FoldCodes
from pipeline.crossfit.study_folds import Folds
from pipeline.runtime.files import lock_store
from pipeline.stores.builder import ArraySpec, StoreBuilder
from pipeline.stores.latents import LatentStore
from pipeline.stores.open_store import is_current
from pipeline.stores.out_of_fold import fold_digest_name, out_of_fold_fingerprint
from schemas.results import CrossfitResult, FoldResult
from schemas.stores import StoreAttributes

ROWS_PER_CHUNK = 1024


def write_out_of_fold(
    out: Path,
    latents: LatentStore,
    folds: Folds,
    codes: FoldCodes,
    embedder: Embedder,
    reference: str,
) -> None:
    """Write a semantics store with y_sem (scan, dim), float32, and fold (scan,), from 0.

    Also y_sem_by_fold (scan, fold, dim): what each fold's model makes of every scan, in its space.
    `reference` is the digest of the LDAE in whose space the codes are.
    """
    source, alignment = latents.attributes, embedder.alignment_digest
    of_scan, scan_ids = folds.of_scan, folds.scan_ids
    digests = {fold_digest_name(fold): digest for fold, digest in enumerate(codes.ldae)}
    attributes = StoreAttributes(
        kind="semantics",
        made_by=f"ldae-pipeline {__version__}",
        params={"crossfit": {"folds": len(codes.ldae)}},
        digests=dict(source.digests) | digests | {"ldae": reference, "alignment": alignment},
        grid=source.grid,
        scan_ids=scan_ids,
        fingerprints=[
            out_of_fold_fingerprint(
                source.fingerprints[latents.row_of[scan]],
                fold=codes.ldae[fold],
                reference=reference,
                alignment=alignment,
            )
            for scan, fold in zip(scan_ids, of_scan.tolist(), strict=True)
        ],
    )
    arrays = [
        ArraySpec(
            name="y_sem",
            row_shape=codes.y_sem.shape[1:],
            dtype="float32",
            dimension_names=("feature",),
            rows_per_chunk=ROWS_PER_CHUNK,
            fill_value=float("nan"),
            compressors=(ZstdCodec(level=3), Crc32cCodec()),
        ),
        ArraySpec(
            name="y_sem_by_fold",
            row_shape=codes.by_fold.shape[1:],
            dtype="float32",
            dimension_names=("model", "feature"),
            rows_per_chunk=ROWS_PER_CHUNK,
            fill_value=float("nan"),
            compressors=(ZstdCodec(level=3), Crc32cCodec()),
        ),
        ArraySpec(
            name="fold",
            row_shape=(),
            dtype="int16",
            dimension_names=(),
            rows_per_chunk=ROWS_PER_CHUNK,
            fill_value=-1,
            compressors=(ZstdCodec(level=3), Crc32cCodec()),
        ),
    ]
    with lock_store(out):
        if is_current(out, attributes):
            return
        builder = StoreBuilder(out, attributes, arrays, unit_rows=ROWS_PER_CHUNK)
        for unit in builder.pending():
            rows = slice(unit.start, unit.stop)
            builder.write(
                unit,
                {
                    "y_sem": codes.y_sem[rows],
                    "y_sem_by_fold": codes.by_fold[rows],
                    "fold": of_scan[rows].astype(np.int16),
                },
            )
        builder.finish()


def describe(
    folds: Folds, codes: FoldCodes, parts: Mapping[str, slice], *, aligned_on: str
) -> CrossfitResult:
    """Return sizes of the folds, and how well the codes agree with those of the reference.

    `parts` are the parts of y_sem: amounts of modes, and the summary.
    """
    of_scan, subjects = folds.of_scan, folds.table["subject_id"].astype(str)
    split = folds.table["split"].to_numpy()
    unseen = split == "test"
    std: dict[str, float] = {}
    agreement: dict[str, float] = {}
    for name, part in parts.items():
        sets = {
            "reference_train": codes.reference[split == "train", part],
            "reference_test": codes.reference[unseen, part],
            "out_of_fold": codes.y_sem[:, part],
        }
        known = {f"{name}_{which}": rms(values) for which, values in sets.items()}
        std |= {which: value for which, value in known.items() if np.isfinite(value)}
        share = explained(codes.y_sem[unseen, part], codes.reference[unseen, part])
        agreement |= {name: share} if np.isfinite(share) else {}
    return CrossfitResult(
        folds=len(codes.ldae),
        subjects=subjects.nunique(),
        scans=len(folds.table),
        aligned_on=aligned_on,
        by_fold=[
            FoldResult(
                subjects=int(subjects[of_scan == fold].nunique()),
                scans=int((of_scan == fold).sum()),
                ldae=digest,
                summary_explained=codes.explained[fold],
            )
            for fold, digest in enumerate(codes.ldae)
        ],
        std=std,
        agreement=agreement,
    )


def rms(y_sem: NDArray[np.floating]) -> float:
    """Return the root mean square of codes (scan, dim) about their mean; NaN of nothing."""
    if y_sem.size == 0 or len(y_sem) < 2:
        return float("nan")
    return float(np.sqrt(y_sem.var(axis=0).mean()))


def explained(codes: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Return the share of the reference's codes (scan, dim) that others explain; NaN of nothing."""
    total = np.square(reference - reference.mean(axis=0)).sum() if reference.size else 0.0
    return float(1 - np.square(codes - reference).sum() / total) if total else float("nan")
