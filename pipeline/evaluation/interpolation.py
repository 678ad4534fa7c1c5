"""A middle visit filled in from its neighbours, against the scan that was really made."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline.applications.interpolate import interpolate
from pipeline.applications.models import Models
from pipeline.applications.sources import Source
from pipeline.evaluation.metrics import reconstruction_metrics
from pipeline.evaluation.ventricles import brain_median, ventricle_ml

METHODS = ("ldae", "blend", "nearest")
"""LDAE interpolation; linear voxel blend of the two scans; the scan nearer in time."""


@dataclass(frozen=True, slots=True)
class MiddleVisit:
    """A visit between two others of its subject."""

    subject_id: str
    before: str
    scan_id: str
    after: str
    alpha: float
    """Where it lies between the two in time, 0 to 1."""
    gap_months: float
    """Months between the two."""


def middle_visits(manifest: pd.DataFrame, scan_ids: Collection[str]) -> list[MiddleVisit]:
    """Return every visit of `scan_ids` that has the same subject's visits on both sides.

    Its neighbours are the nearest of another month. Scans without a month are left out.
    """
    known = manifest[manifest["scan_id"].isin(scan_ids) & manifest["months_from_first"].notna()]
    found = []
    for subject, visits in known.groupby("subject_id"):
        ordered = visits.sort_values(["months_from_first", "scan_id"])
        ordered = ordered.drop_duplicates("months_from_first")
        ids, months = ordered["scan_id"].tolist(), ordered["months_from_first"].tolist()
        for i in range(1, len(ids) - 1):
            gap = months[i + 1] - months[i - 1]
            alpha = (months[i] - months[i - 1]) / gap
            found.append(MiddleVisit(str(subject), ids[i - 1], ids[i], ids[i + 1], alpha, gap))
    return found


def judge_middle_visit(
    models: Models, visit: MiddleVisit, before: Source, middle: Source, after: Source
) -> pd.DataFrame:
    """Return one row a method and target: how close each comes to the middle visit.

    Targets: `scan`, the preprocessed middle visit, and `decoded`, what the autoencoder alone makes
    of it. Columns: those of `reconstruction_metrics`, and ventricle_error_ml (absolute).

    Raises
    ------
    ValueError
        If a source comes without its volume.
    """
    real = [source.volume for source in (before, middle, after)]
    if any(volume is None for volume in real):
        raise ValueError("middle visits are judged on volumes; open the sources with them")
    first, scan, last = (np.asarray(volume, dtype=np.float32) for volume in real)
    outcome = interpolate(models, before.z_0, after.z_0, [visit.alpha])
    made = {
        "ldae": outcome.volumes[0].numpy(),
        "blend": (1 - visit.alpha) * first + visit.alpha * last,
        "nearest": first if visit.alpha <= 0.5 else last,
    }
    targets = {"scan": scan, "decoded": models.decode(middle.z_0)[0].numpy()}
    affine = np.asarray(models.autoencoder.grid["affine"], dtype=np.float64)
    median = brain_median(scan)
    mask = _tensor(scan) > 0
    rows = []
    for target_name, target in targets.items():
        truth_ml = ventricle_ml(target, affine, median=median)
        for method in METHODS:
            figures = reconstruction_metrics(_tensor(target), _tensor(made[method]), mask).iloc[0]
            error = abs(ventricle_ml(made[method], affine, median=median) - truth_ml)
            about = {"scan_id": visit.scan_id, "subject_id": visit.subject_id}
            about |= {"method": method, "target": target_name}
            numbers = {str(name): float(value) for name, value in figures.items()}
            gap = {"gap_months": visit.gap_months, "alpha": visit.alpha}
            rows.append(about | gap | numbers | {"ventricle_error_ml": error})
    return pd.DataFrame(rows)


def _tensor(volume: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(volume, dtype=np.float32))[None, None]
