"""Reconstruct scans that no network was trained on, by every method, and score each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.evaluation.draws import DrawnBrains, drawn_means
from pipeline.evaluation.reconstruction_rivals import VolumesByMethod, linear_volumes
from pipeline.metrics.gaussianity import latent_health
from pipeline.metrics.intervals import paired_difference
from pipeline.metrics.reconstruction import ReconstructionScorer, summarise_reconstruction
from pipeline.models.inference import LdaeInference
from pipeline.models.reconstruction_speed import measure_throughput
from pipeline.nets.lpips import Lpips, lpips_of_volumes
from pipeline.rivals.latent_pca import LatentPca
from pipeline.runtime.progress import Progress
from pipeline.stores.volumes import VolumeStore
from pipeline.study.remembering import without_memory
from pipeline.study.study import EXAMPLES, Part, Study, levels, of_many_subjects

METHODS = ("ae", "ldae", "lddim", "ldae_y_sem_only", "ldae_other_y_sem")
"""AE alone; LDAE with inverted x_T; the denoiser alone with inverted x_T (LDDIM); y_sem with random
x_T; and the control for that: other subjects' y_sem with the same random x_T."""
DRAWN_METHODS = ("ldae_y_sem_mean", "ldae_other_y_sem_mean", "modes_alone")
"""Means over draws of x_T; see `draws.drawn_means`."""
LINEAR_METHODS = ("mean_brain", "pca_projection", "pca_other", "mode_projection")
"""Without sampling; see `reconstruction_rivals.linear_volumes`."""
VOXEL_METHODS = {"ldae": "voxel_dae", "ldae_y_sem_only": "voxel_dae_y_sem_only"}
"""Names of the same methods for the voxel-space diffusion autoencoder."""
SHOWN = ("ae", "ldae", "ldae_y_sem_only", "ldae_y_sem_mean", "mean_brain", "voxel_dae")
PAIRS = {
    "ldae_minus_ae": ("ldae", "ae"),
    "own_minus_other_y_sem": ("ldae_y_sem_only", "ldae_other_y_sem"),
    "y_sem_mean_minus_mean_brain": ("ldae_y_sem_mean", "mean_brain"),
    "y_sem_mean_minus_pca": ("ldae_y_sem_mean", "pca_projection"),
    "y_sem_mean_minus_modes_alone": ("ldae_y_sem_mean", "modes_alone"),
    "own_minus_other_y_sem_mean": ("ldae_y_sem_mean", "ldae_other_y_sem_mean"),
    "own_minus_other_pca": ("pca_projection", "pca_other"),
    "ldae_minus_voxel_dae": ("ldae", "voxel_dae"),
}
"""LDAE minus LDDIM is no measure of what y_sem adds: an exact inversion gives back the latent with
any code, so that it is 0 by construction. Own minus other subjects' y_sem is one."""
PAIRED_METRICS = ("ssim_brain", "mse_brain")
VOLUMES_A_SCAN = 20
"""About as many does a scan have by all methods, float32."""
BATCH_BYTES = 500_000_000
"""The volumes of a batch take at most so much: at 1.5 mm two scans, not four."""
OTHERS = 3
"""Other subjects whose y_sem a scan is given: their mean says more than one does."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan to score, and a scan of each of some other subjects."""

    scan_id: str
    subject_id: str
    other_ids: tuple[str, ...]
    draw: int
    """Number of the x_T of its single draws."""


def evaluate_reconstruction(study: Study) -> Part:
    """Score every method at the steps of the params, and some at other numbers of steps.

    Raises
    ------
    ContractError
        If the split holds no scan of the stores.
    """
    params = study.params
    chosen = of_many_subjects(study.judged, params.max_scans)
    pca = LatentPca.of_training(study.latents, study.scans, study.models.ldae.net.encoder.dim)
    models = study.models
    mean_brain = None if pca is None else models.decode(models.standardise(pca.mean_latent))
    scans = list(_with_other_subjects(chosen, params.draws))
    brains = DrawnBrains(study)
    rows, noises = [], []
    examples: dict[str, list[np.ndarray]] = {}
    with Progress("reconstruction", total=len(scans)) as bar:
        for batch in _batches(scans, _scans_at_once(study)):
            volumes_of, x_T = reconstruct_all(study, batch, brains)
            volumes_of |= _rival_volumes(study, pca, batch, brains, mean_brain)
            brains.forget(scan.scan_id for scan in batch)
            noises.append(x_T.cpu())
            for i, scan in enumerate(batch):
                reference = _reference(study.volumes, scan.scan_id)
                own = {method: volumes[i] for method, volumes in volumes_of.items()}
                health = {f"x_T_{k}": v for k, v in latent_health(x_T[i : i + 1]).items()}
                scored = score_reconstruction(
                    scan, reference, own, params.num_inference_steps, study.lpips
                )
                rows += [r | (health if r["method"] == "ldae" else {}) for r in scored]
                if len(examples.get("scan_id", [])) < EXAMPLES:
                    _keep_example(examples, scan.scan_id, reference, own)
                bar.advance()
    main = pd.DataFrame(rows)
    steps = _other_steps(study, scans[: params.other_steps_scans])
    metrics = {
        "split": params.split,
        "scans": len(chosen),
        "sampler": params.sampler,
        "num_inference_steps": params.num_inference_steps,
        "reconstruction": summarise_reconstruction(main),
        "inversion": latent_health(torch.cat(noises)),
        "differences": _differences(main),
        "steps": _summarise_steps(pd.concat([main, steps])),
    }
    if study.voxel_dae is not None:
        ways = {"ldae": without_memory(study.models), "voxel_dae": study.voxel_dae}
        one = _reference(study.volumes, scans[0].scan_id)[None]
        metrics["throughput"] = measure_throughput(ways, one, baseline="voxel_dae")
    pictures = {name: np.stack(values) for name, values in examples.items()}
    return Part(metrics=metrics, per_scan=pd.concat([main, steps]), pictures=pictures)


def reconstruct_all(
    study: Study, batch: list[Scan], brains: DrawnBrains
) -> tuple[VolumesByMethod, Float[Tensor, "B C X Y Z"]]:
    """Return each method's volumes of some scans, and the LDAE's inverted x_T.

    Those of other subjects' y_sem are (B, K, X, Y, Z), for K others.
    """
    models = study.models
    scan_ids, draws = [scan.scan_id for scan in batch], [scan.draw for scan in batch]
    z_0 = study.z_0(scan_ids)
    codes = models.infer_codes(z_0, study.encoder_volumes(scan_ids))
    volumes_of = {
        "ae": models.decode(z_0),
        "lddim": _lddim(models, z_0),
        "ldae": models.decode(models.sample(codes.y_sem, codes.x_T)),
        "ldae_y_sem_only": brains.volumes(scan_ids, draws),
    }
    others = [(other, scan.draw) for scan in batch for other in scan.other_ids]
    if others:
        several = brains.volumes(*zip(*others, strict=True))
        volumes_of["ldae_other_y_sem"] = several.reshape(len(batch), -1, *several.shape[1:])
    if study.voxel_dae is not None:
        voxels = study.voxel_dae
        volumes = torch.cat([_reference(study.volumes, scan)[None] for scan in scan_ids])
        noise = torch.cat([voxels.random_noise(study.params.seed, scan) for scan in scan_ids])
        ways = _ldae_volumes(voxels, voxels.encode(volumes), volumes, noise)
        volumes_of |= {VOXEL_METHODS[name]: volumes for name, volumes in ways.items()}
    return volumes_of, codes.x_T


def _rival_volumes(
    study: Study,
    pca: LatentPca | None,
    batch: list[Scan],
    brains: DrawnBrains,
    mean_brain: Tensor | None,
) -> VolumesByMethod:
    """Return what y_sem must beat, and its own means over draws, with one other subject each."""
    scan_ids = [scan.scan_id for scan in batch]
    other_ids = [scan.other_ids[0] for scan in batch if scan.other_ids]
    linear = {}
    if pca is not None:
        linear = linear_volumes(study, pca, scan_ids, other_ids, mean_brain=mean_brain)
    return linear | drawn_means(brains, scan_ids, other_ids)


def _ldae_volumes(
    models: LdaeInference,
    z_0: Tensor,
    encoder_volumes: Tensor | None,
    noise: Tensor,
) -> VolumesByMethod:
    """Return what y_sem gives with inverted x_T, and with the noise."""
    codes = models.infer_codes(z_0, encoder_volumes)
    starts = torch.cat([codes.x_T, noise])
    decoded = models.decode(models.sample(codes.y_sem.repeat(2, 1), starts))
    return {"ldae": decoded[: len(z_0)], "ldae_y_sem_only": decoded[len(z_0) :]}


def _lddim(models: LdaeInference, z_0: Tensor) -> Tensor:
    return models.decode(models.sample(None, models.invert(None, z_0)))


@torch.inference_mode()
def score_reconstruction(
    scan: Scan,
    reference: Tensor,
    volumes_of: VolumesByMethod,
    steps: int,
    lpips: Lpips | None = None,
) -> list[dict[str, Any]]:
    """Return one row of a scan's figures a volume, of which some methods have several."""
    truth = reference[None, None]
    scorer = ReconstructionScorer(reference, reference > 0)
    rows = []
    row: dict[str, Any] = {"scan_id": scan.scan_id, "subject_id": scan.subject_id}
    for method, volumes in volumes_of.items():
        several = volumes.ndim > reference.ndim
        for k, volume in enumerate(volumes if several else volumes[None]):
            entry = row | {"method": method, "num_inference_steps": steps}
            if several:
                entry["y_sem_of"] = scan.other_ids[k]
            if lpips is not None:
                entry["lpips"] = lpips_of_volumes(lpips, truth, volume[None, None], truth > 0)
            rows.append(entry | scorer.score(volume))
    return rows


def _other_steps(study: Study, scans: list[Scan]) -> pd.DataFrame:
    """Return the figures of LDAE, y_sem alone and LDDIM at other numbers of steps."""
    rows = []
    for steps in study.params.other_steps if scans else ():
        models = replace(study.models, num_inference_steps=steps)
        for batch in _batches(scans, _scans_at_once(study)):
            z_0 = study.z_0(scan.scan_id for scan in batch)
            encoder_volumes = study.encoder_volumes(scan.scan_id for scan in batch)
            noise = torch.cat([study.noise(scan.draw) for scan in batch])
            volumes_of = _ldae_volumes(models, z_0, encoder_volumes, noise)
            volumes_of |= {"lddim": _lddim(models, z_0)}
            for i, scan in enumerate(batch):
                reference = _reference(study.volumes, scan.scan_id)
                rows += score_reconstruction(
                    scan, reference, {m: v[i] for m, v in volumes_of.items()}, steps
                )
    return pd.DataFrame(rows)


def _summarise_steps(per_scan: pd.DataFrame) -> dict[str, Any]:
    """Return {steps: {method: {metric: Estimate}}} over the scans judged at all of them."""
    counts = per_scan.groupby("scan_id")["num_inference_steps"].nunique()
    if counts.max() < 2:
        return {}
    everywhere = counts.index[counts == counts.max()]
    rows = per_scan[per_scan["scan_id"].isin(everywhere)]
    rows = rows[rows["method"].isin(["ldae", "ldae_y_sem_only", "lddim"])]
    return {
        str(steps): summarise_reconstruction(group)
        for steps, group in rows.groupby("num_inference_steps")
    }


def _reference(volumes: VolumeStore, scan_id: str) -> Float[Tensor, "X Y Z"]:
    row = volumes.row_of[scan_id]
    return torch.from_numpy(volumes.read_unit_interval(slice(row, row + 1))[0, 0])


def _scans_at_once(study: Study) -> int:
    """Return `evaluate.batch_size`, or fewer where the methods' volumes would fill the memory."""
    voxels = math.prod(study.models.autoencoder.grid.shape)
    room = BATCH_BYTES // (4 * voxels * VOLUMES_A_SCAN)
    return max(1, min(study.params.batch_size, room))


def _batches(scans: list[Scan], size: int) -> Iterator[list[Scan]]:
    return (scans[start : start + size] for start in range(0, len(scans), size))


def _with_other_subjects(chosen: pd.DataFrame, draws: int) -> Iterator[Scan]:
    """Give every scan the next scans, cyclically, of other subjects, one of each, and a draw."""
    records = chosen[["scan_id", "subject_id"]].astype(str).to_records(index=False).tolist()
    for i, (scan_id, subject) in enumerate(records):
        others: dict[str, str] = {}
        for other_id, other in records[i + 1 :] + records[:i]:
            if other != subject:
                others.setdefault(other, other_id)
        yield Scan(scan_id, subject, tuple(others.values())[:OTHERS], i % max(draws, 1))


def _differences(per_scan: pd.DataFrame) -> dict[str, Any]:
    """Return {pair: {metric: Estimate}}, paired by scan, with intervals over subjects."""
    differences: dict[str, Any] = {}
    for metric in PAIRED_METRICS:
        wide = per_scan.pivot_table(
            index=["subject_id", "scan_id"], columns="method", values=metric
        )
        subjects = wide.index.get_level_values("subject_id").to_numpy()
        for name, (a, b) in PAIRS.items():
            if {a, b} <= set(wide) and wide[[a, b]].notna().all().all():
                estimate = paired_difference(wide[a].to_numpy(), wide[b].to_numpy(), subjects)
                differences.setdefault(name, {})[metric] = estimate.model_dump()
    return differences


def _keep_example(
    examples: dict[str, list[np.ndarray]],
    scan_id: str,
    reference: Tensor,
    volumes_of: VolumesByMethod,
) -> None:
    examples.setdefault("scan_id", []).append(np.asarray(scan_id))
    for name, volume in {"reference": reference, **volumes_of}.items():
        if name in ("reference", *SHOWN):
            examples.setdefault(name, []).append(levels(volume.numpy()))
