"""Imported weights at work on the MNI152 template: round trips, inverted noise, place of y_sem.

The template is preprocessed by definition. What goes wrong here (another scale of intensities or
latents, another order of channels, weights that were never trained) goes wrong on every scan.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.diffusion.samplers import Model, Sampler, invert, sample
from pipeline.imaging.template import load_template
from pipeline.metrics.gaussianity import latent_health, near_gaussian
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.direction import FILE as DIRECTIONS
from pipeline.models.frozen import load_autoencoder, load_diffusion, load_ldae
from pipeline.models.ldae import LatentDiffusion

POOR_SSIM = 0.8
LOST_SSIM = 0.05
"""A round trip of codes that is so much worse than the autoencoder's is worth a remark."""
FAR = 5.0
"""Root mean square of standardised y_sem beyond which it is none of the training scans'."""
SAMPLER: Sampler = "dpm"


@torch.inference_mode()
def prove_import(
    folder: Path, ae: Path, *, kind: str, steps: int, device: torch.device
) -> tuple[dict[str, float], list[str]]:
    """Return figures of the template, and what looks wrong in words.

    One network is in memory at a time. Without `steps` the autoencoder alone is judged.
    """
    autoencoder = load_autoencoder(ae, device=device)
    template, brain = load_template(autoencoder.grid.as_params())
    volume = torch.from_numpy(template * brain)[None, None]
    inside = torch.from_numpy(brain.copy())[None, None]
    mean, _ = autoencoder.net.encode(volume.to(device))
    figures = _figures("ae", volume, autoencoder.net.decode(mean), inside)
    del autoencoder
    if not steps:
        return figures, _remarks(figures)
    health, z_0 = _round_trip(folder, kind, mean, volume.to(device), steps)
    figures |= health
    autoencoder = load_autoencoder(ae, device=device)
    figures |= _figures(kind, volume, autoencoder.net.decode(z_0), inside)
    return figures, _remarks(figures)


def _round_trip(
    folder: Path, kind: str, mean: Tensor, volume: Tensor, steps: int
) -> tuple[dict[str, float], Tensor]:
    """Return figures of y_sem and of inverted noise, and the latent that comes back of them."""
    figures: dict[str, float] = {}
    model: Model
    diffusion: LatentDiffusion
    if kind == "ldae":
        ldae = load_ldae(folder, device=mean.device).net
        diffusion = ldae.diffusion
        y_sem = ldae.encoder(volume)
        figures |= _place(folder, y_sem)
        model = ldae.model(y_sem)
    else:
        diffusion = load_diffusion(folder, device=mean.device).diffusion
        model = diffusion.eps
    z_0 = diffusion.standardise(mean)
    x_t = invert(model, z_0, diffusion.schedule, sampler=SAMPLER, num_inference_steps=steps)
    health = latent_health(x_t)
    made = sample(model, x_t, diffusion.schedule, sampler=SAMPLER, num_inference_steps=steps)
    figures |= {f"x_T_{name}": value for name, value in health.items()}
    return figures, diffusion.standardise.inverse(made)


def _place(folder: Path, y_sem: Tensor) -> dict[str, float]:
    """Return where y_sem lies among the scans that the imported probe was fitted on."""
    found = {"y_sem_std": float(y_sem.double().std())}
    path = folder / DIRECTIONS
    if path.is_file():
        entry = next(iter(json.loads(path.read_text())["directions"].values()))
        apart = (y_sem.double().cpu().numpy()[0] - entry["mean"]) / entry["std"]
        found["y_sem_standardised_rms"] = float(np.sqrt(np.mean(np.square(apart))))
    return found


def _figures(name: str, volume: Tensor, made: Tensor, inside: Tensor) -> dict[str, float]:
    judged = reconstruction_metrics(volume, made.float().cpu(), inside).iloc[0]
    return {f"{name}_{metric}": float(value) for metric, value in judged.items()}


def _remarks(figures: dict[str, float]) -> list[str]:
    """Return what looks wrong, in words."""
    said = []
    own = figures["ae_ssim_brain"]
    if not own >= POOR_SSIM:
        said.append(
            f"the autoencoder brings the template back with SSIM {own:.3f}: another autoencoder,"
            " voxel size or intensity scale than it was trained with"
        )
    both = next((figures[k] for k in ("ldae_ssim_brain", "ldm_ssim_brain") if k in figures), None)
    if both is not None and not both >= own - LOST_SSIM:
        said.append(
            f"inversion and sampling bring it back with SSIM {both:.3f}, the autoencoder alone with"
            f" {own:.3f}: weights that were never trained, or another scale of latents"
        )
    health = {name: figures.get(f"x_T_{name}") for name in ("mean", "std", "kurtosis")}
    known = {name: value for name, value in health.items() if value is not None}
    if len(known) == len(health) and not near_gaussian(known):
        said.append(
            f"inverted x_T has mean {known['mean']:.2f}, std {known['std']:.2f}, kurtosis"
            f" {known['kurtosis']:.2f}; expected 0, 1, 3: the template is unlike the training"
            " scans, or the weights do not belong to this autoencoder"
        )
    if not figures.get("y_sem_std", 1.0) > 0:
        said.append("y_sem is one number everywhere: the semantic encoder was never trained")
    apart = figures.get("y_sem_standardised_rms", 0.0)
    if not apart <= FAR:
        said.append(
            f"y_sem of the template lies {apart:.1f} standard deviations from the probe's mean:"
            " statistics of another encoder, or other preprocessing"
        )
    return said
