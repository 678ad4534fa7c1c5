"""Score the frozen autoencoder alone, which bounds everything downstream."""

import io
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.figures.error_map import error_map_png
from pipeline.imaging.ventricles import intensity_levels, ventricle_ml
from pipeline.metrics.intervals import mean_interval, median_interval
from pipeline.metrics.posterior_statistics import LatentStatistics
from pipeline.metrics.reconstruction import psnr, reconstruction_metrics
from pipeline.metrics.ssim import ms_ssim, num_scales
from pipeline.models.frozen import FrozenAutoencoder
from pipeline.nets.lpips import Lpips, lpips_of_volumes
from pipeline.runtime.files import write_atomic, write_json
from pipeline.runtime.progress import progress
from pipeline.stores.volumes import VolumeStore
from pipeline.study.study import of_many_subjects
from schemas.errors import ContractError
from schemas.evaluation import EvaluateParams

DRIFT_PASSES = 5
"""Times that a scan is encoded and decoded in a row."""


@dataclass(kw_only=True)
class AutoencoderScorer:
    """Takes scans through the autoencoder, one at a time, and keeps what a summary needs."""

    autoencoder: FrozenAutoencoder
    volumes: VolumeStore
    device: torch.device
    bf16: bool = False
    lpips: Lpips | None = None
    latents: LatentStatistics = field(default_factory=LatentStatistics)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"encode": [], "decode": []})
    error_sum: Any = 0.0
    reference_sum: Any = 0.0

    @torch.inference_mode()
    def score_reconstruction(self, scan_id: str) -> dict[str, float]:
        """Return the figures of a scan."""
        row = self.volumes.row_of[scan_id]
        reference = torch.from_numpy(self.volumes.read_unit_interval(slice(row, row + 1)))
        brain = reference > 0
        mean, logvar = self._timed("encode", self._encode, reference.to(self.device))
        kl = self.latents.add(mean.float(), logvar.float())
        reconstruction = self._timed("decode", self._decode, mean)
        figures = image_figures(reference, reconstruction, brain)
        figures |= {f"kl_channel_{i}": float(v) for i, v in enumerate(kl)}
        if self.lpips is not None:
            figures["lpips"] = lpips_of_volumes(self.lpips, reference, reconstruction, brain)
        figures |= self._ventricles(reference, reconstruction) | self._drift(
            reference, reconstruction, brain
        )
        self.error_sum = self.error_sum + (reconstruction - reference).abs()[0, 0].numpy()
        self.reference_sum = self.reference_sum + reference[0, 0].numpy()
        return figures

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.autoencoder.net.encode(x)

    def _decode(self, latent: Tensor) -> Float[Tensor, "1 1 X Y Z"]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.autoencoder.net.decode(latent).float().clamp(0, 1).cpu()

    def _timed(self, name: str, work: Any, x: Tensor) -> Any:
        started = time.perf_counter()
        result = work(x)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name].append(time.perf_counter() - started)
        return result

    def _ventricles(self, reference: Tensor, reconstruction: Tensor) -> dict[str, float]:
        affine = np.asarray(self.volumes.attributes.grid.affine, dtype=np.float64)
        before, after = reference[0, 0].numpy(), reconstruction[0, 0].numpy()
        own = intensity_levels(before, affine)
        true, kept = (ventricle_ml(v, affine, levels=own) for v in (before, after))
        error = (kept - true) / true if true > 0 else float("nan")
        return {"ventricle_ml": true, "ventricle_ml_made": kept, "ventricle_error": error}

    def _drift(self, reference: Tensor, reconstruction: Tensor, brain: Tensor) -> dict[str, float]:
        """Return SSIM and MSE to the scan after each pass through the autoencoder."""
        figures = {}
        for number in range(1, DRIFT_PASSES + 1):
            if number > 1:
                reconstruction = self._decode(self._encode(reconstruction.to(self.device))[0])
            row = reconstruction_metrics(reference, reconstruction, brain).iloc[0]
            figures[f"drift_ssim_brain_{number}"] = float(row["ssim_brain"])
            figures[f"drift_mse_brain_{number}"] = float(row["mse_brain"])
        return figures


def image_figures(
    reference: Float[Tensor, "1 1 X Y Z"],
    reconstruction: Float[Tensor, "1 1 X Y Z"],
    brain: Bool[Tensor, "1 1 X Y Z"],
) -> dict[str, float]:
    """Return SSIM, MS-SSIM, PSNR, MSE and MAE, inside the brain and over the whole volume."""
    row = reconstruction_metrics(reference, reconstruction, brain).iloc[0]
    figures = {str(name): float(value) for name, value in row.items()}
    figures["psnr_whole"] = psnr(figures["mse_whole"])
    figures["mae_whole"] = float((reconstruction - reference).abs().mean())
    figures["ms_ssim_brain"], figures["ms_ssim_whole"] = ms_ssim(reference, reconstruction, brain)
    return figures


def evaluate_autoencoder(
    scorer: AutoencoderScorer, scans: pd.DataFrame, params: EvaluateParams, out: Path
) -> dict[str, Any]:
    """Write metrics.json, per_scan.parquet and error_map.png (and .npz) to `out`.

    `scans` has scan_id and subject_id; those that the volume store lacks are left out.

    Raises
    ------
    ContractError
        If no scan is left.
    """
    stored = scans[scans["scan_id"].isin(scorer.volumes.row_of)]
    chosen = of_many_subjects(stored, params.max_scans)
    if chosen.empty:
        raise ContractError(
            f"{scorer.volumes.path}: no scan of the {params.split} split; check the manifest, or"
            " set evaluate.split"
        )
    if scorer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(scorer.device)
    rows = []
    for _, scan in progress(chosen.iterrows(), total=len(chosen), label="evaluate ae"):
        own = {key: str(scan[key]) for key in ("scan_id", "subject_id")}
        rows.append(own | scorer.score_reconstruction(own["scan_id"]))
    per_scan = pd.DataFrame(rows)
    metrics = summarise(scorer, per_scan, params)
    buffer = io.BytesIO()
    per_scan.to_parquet(buffer, index=False)
    write_atomic(out / "per_scan.parquet", buffer.getvalue())
    reference, error = (total / len(rows) for total in (scorer.reference_sum, scorer.error_sum))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, reference=np.float16(reference), error=np.float16(error))
    write_atomic(out / "error_map.npz", buffer.getvalue())
    write_atomic(out / "error_map.png", error_map_png(reference, error))
    write_json(out / "metrics.json", metrics)
    return metrics


def summarise(
    scorer: AutoencoderScorer, per_scan: pd.DataFrame, params: EvaluateParams
) -> dict[str, Any]:
    """Return every figure with its interval over subjects, latents, speed and memory."""
    subjects = per_scan["subject_id"].to_numpy()

    def estimate(values: Any) -> dict[str, Any]:
        return mean_interval(values, subjects).model_dump()

    columns = [c for c in per_scan.columns if c not in ("scan_id", "subject_id")]
    drift = [c for c in columns if c.startswith("drift_")]
    figures = [c for c in columns if c not in drift and not c.startswith(("kl_", "ventricle"))]
    error = per_scan["ventricle_error"].to_numpy(float)
    known = np.isfinite(error)
    ventricles: dict[str, Any] = {"scans": int(known.sum())}
    if ventricles["scans"]:
        whose, errors = subjects[known], error[known]
        ventricles["median_absolute_relative_error"] = median_interval(
            np.abs(errors), whose
        ).model_dump()
        ventricles["mean_relative_error"] = mean_interval(errors, whose).model_dump()
    return {
        "split": params.split,
        "scans": len(per_scan),
        "autoencoder": scorer.autoencoder.digest,
        "ms_ssim_scales": num_scales(scorer.volumes.attributes.grid.shape),
        "reconstruction": {name: estimate(per_scan[name].to_numpy(float)) for name in figures},
        "ventricles": ventricles,
        "drift": {name: estimate(per_scan[name].to_numpy(float)) for name in drift},
        "latent": scorer.latents.summary(),
        "speed": {
            f"{name}_scans_per_second": 1 / float(np.median(s[1:] or s))
            for name, s in scorer.seconds.items()
        },
        "peak_memory_gib": _peak_gib(scorer.device),
        "device": str(scorer.device),
    }


def _peak_gib(device: torch.device) -> float:
    """Return the most memory so far (GiB): of the GPU, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
