"""Trial of imported weights on the MNI152 template: round trips, inverted noise, y_sem.

The template needs no preprocessing. A fault seen here (another scale of intensities or latents,
another order of channels, weights that were never trained) affects every scan.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.diffusion.samplers import Model, Sampler, invert, sample
from pipeline.imaging.atlas.mni152 import load_template
from pipeline.metrics.gaussianity import latent_health, near_gaussian
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.direction import FILE as DIRECTIONS
from pipeline.models.frozen import load_autoencoder, load_diffusion, load_ldae
from pipeline.models.ldae import LatentDiffusion

POOR_SSIM = 0.8
LOST_SSIM = 0.05
"""Loss of SSIM, against the autoencoder alone, from which a round trip of codes is remarked on."""
FAR = 5.0
"""Root mean square of standardised y_sem beyond which it is unlike the training scans."""
SAMPLER: Sampler = "dpm"


@torch.inference_mode()
def prove_import(
    folder: Path, ae: Path, *, kind: str, steps: int, device: torch.device
) -> tuple[dict[str, float], list[str]]:
    """Return metrics of the template, and remarks on suspicious ones.

    One network is in memory at a time. Without `steps` the autoencoder alone is judged.
    """
    autoencoder = load_autoencoder(ae, device=device)
    template, brain = load_template(autoencoder.grid.as_params())
    volume = torch.from_numpy(template * brain)[None, None]
    inside = torch.from_numpy(brain.copy())[None, None]
    mean, _ = autoencoder.net.encode(volume.to(device))
    metrics = _reconstruction("ae", volume, autoencoder.net.decode(mean), inside)
    del autoencoder
    if not steps:
        return metrics, _remarks(metrics)
    health, z_0 = _round_trip(folder, kind, mean, volume.to(device), steps)
    metrics |= health
    autoencoder = load_autoencoder(ae, device=device)
    metrics |= _reconstruction(kind, volume, autoencoder.net.decode(z_0), inside)
    return metrics, _remarks(metrics)


def _round_trip(
    folder: Path, kind: str, mean: Tensor, volume: Tensor, steps: int
) -> tuple[dict[str, float], Tensor]:
    """Return metrics of y_sem and inverted noise, and the latent sampled from the two."""
    metrics: dict[str, float] = {}
    model: Model
    diffusion: LatentDiffusion
    if kind == "ldae":
        ldae = load_ldae(folder, device=mean.device).net
        diffusion = ldae.diffusion
        y_sem = ldae.encoder(volume)
        metrics |= _y_sem_position(folder, y_sem)
        model = ldae.model(y_sem)
    else:
        diffusion = load_diffusion(folder, device=mean.device).diffusion
        model = diffusion.eps
    z_0 = diffusion.standardise(mean)
    x_t = invert(model, z_0, diffusion.schedule, sampler=SAMPLER, num_inference_steps=steps)
    health = latent_health(x_t)
    latent = sample(model, x_t, diffusion.schedule, sampler=SAMPLER, num_inference_steps=steps)
    metrics |= {f"x_T_{name}": value for name, value in health.items()}
    return metrics, diffusion.standardise.inverse(latent)


def _y_sem_position(folder: Path, y_sem: Tensor) -> dict[str, float]:
    """Return the distance of y_sem from the scans that the imported probe was fitted on."""
    metrics = {"y_sem_std": float(y_sem.double().std())}
    path = folder / DIRECTIONS
    if path.is_file():
        entry = next(iter(json.loads(path.read_text())["directions"].values()))
        apart = (y_sem.double().cpu().numpy()[0] - entry["mean"]) / entry["std"]
        metrics["y_sem_standardised_rms"] = float(np.sqrt(np.mean(np.square(apart))))
    return metrics


def _reconstruction(name: str, volume: Tensor, decoded: Tensor, inside: Tensor) -> dict[str, float]:
    scan = reconstruction_metrics(volume, decoded.float().cpu(), inside).iloc[0]
    return {f"{name}_{metric}": float(value) for metric, value in scan.items()}


def _remarks(metrics: dict[str, float]) -> list[str]:
    """Return remarks on suspicious metrics, in words."""
    remarks = []
    ae_ssim = metrics["ae_ssim_brain"]
    if not ae_ssim >= POOR_SSIM:
        remarks.append(
            f"the autoencoder brings the template back with SSIM {ae_ssim:.3f}: another"
            " autoencoder, voxel size or intensity scale than it was trained with"
        )
    both = next((metrics[k] for k in ("ldae_ssim_brain", "ldm_ssim_brain") if k in metrics), None)
    if both is not None and not both >= ae_ssim - LOST_SSIM:
        remarks.append(
            f"inversion and sampling bring it back with SSIM {both:.3f}, the autoencoder alone with"
            f" {ae_ssim:.3f}: weights that were never trained, or another scale of latents"
        )
    health = {name: metrics.get(f"x_T_{name}") for name in ("mean", "std", "kurtosis")}
    known = {name: value for name, value in health.items() if value is not None}
    if len(known) == len(health) and not near_gaussian(known):
        remarks.append(
            f"inverted x_T has mean {known['mean']:.2f}, std {known['std']:.2f}, kurtosis"
            f" {known['kurtosis']:.2f}; expected 0, 1, 3: the template is unlike the training"
            " scans, or the weights do not belong to this autoencoder"
        )
    if not metrics.get("y_sem_std", 1.0) > 0:
        remarks.append("y_sem is one number everywhere: the semantic encoder was never trained")
    apart = metrics.get("y_sem_standardised_rms", 0.0)
    if not apart <= FAR:
        remarks.append(
            f"y_sem of the template lies {apart:.1f} standard deviations from the probe's mean:"
            " statistics of another encoder, or other preprocessing"
        )
    return remarks
