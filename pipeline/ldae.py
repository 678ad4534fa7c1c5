"""The latent diffusion autoencoder in use: denoiser, semantic encoder, gradient estimator.

Works on standardised latents z_0 = (latent − shift) · scale; `standardise` and `unstandardise`
go between them and what the store holds.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.diffusion.samplers import Model
from pipeline.diffusion.schedule import Schedule, alpha_sigma, per_sample
from pipeline.nets.denoiser import Denoiser, GradientEstimator, Trunk, UnetConfig
from pipeline.nets.semantic import LatentEncoder
from schemas.params import DenoiserParams, Prediction, SemanticEncoderParams


class Standardise(nn.Module):
    """Per-channel shift and scale of latents, fitted on the training split."""

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Float[Tensor, " C"], scale: Float[Tensor, " C"]) -> None:
        super().__init__()
        self.register_buffer("shift", shift.reshape(-1, 1, 1, 1).float())
        self.register_buffer("scale", scale.reshape(-1, 1, 1, 1).float())

    def forward(self, latent: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Return z_0."""
        z_0: Tensor = (latent - self.shift) * self.scale
        return z_0

    def inverse(self, z_0: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Return the latent."""
        return z_0 / self.scale + self.shift


class LatentDiffusion(nn.Module):
    """Stage 1: the denoiser with its schedule and latent statistics."""

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        standardise: Standardise,
        prediction: Prediction = "epsilon",
    ) -> None:
        super().__init__()
        self.prediction = prediction
        self.denoiser = denoiser
        self.schedule = schedule
        self.standardise = standardise

    def noise(
        self, trunk: Trunk, x_t: Float[Tensor, "B C X Y Z"], t: Float[Tensor, " B"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return eps_theta(x_t, t) from the denoiser's features, whatever the network predicts."""
        field: Tensor = self.denoiser.decoder(trunk)
        if self.prediction == "epsilon":
            return field
        alpha, sigma = alpha_sigma(self.schedule.lambda_at(t))
        return per_sample(sigma, x_t) * x_t + per_sample(alpha, x_t) * field


class Ldae(nn.Module):
    """Stage 2 on top of stage 1."""

    def __init__(
        self, diffusion: LatentDiffusion, encoder: LatentEncoder, estimator: GradientEstimator
    ) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.encoder = encoder
        self.estimator = estimator

    def embed(self, z_0: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D"]:
        """Return y_sem."""
        y_sem: Tensor = self.encoder(z_0)
        return y_sem

    def noises(
        self, x_t: Float[Tensor, "B C X Y Z"], t: Float[Tensor, " B"], codes: Sequence[Tensor]
    ) -> list[Float[Tensor, "B C X Y Z"]]:
        """Return eps_theta − sqrt(1 − alpha_bar_t) · G for several y_sem at one x_t.

        The denoiser and its features, the larger part of the work, are computed once.
        """
        diffusion = self.diffusion
        trunk = diffusion.denoiser.trunk(x_t, t)
        noise = diffusion.noise(trunk, x_t, t)
        _, sigma = alpha_sigma(diffusion.schedule.lambda_at(t))
        return [noise - per_sample(sigma, noise) * self.estimator(trunk, y) for y in codes]

    def model(self, y_sem: Float[Tensor, "B D"] | None) -> Model:
        """Return eps(x_t, t) for the samplers; without y_sem the denoiser alone (LDDIM)."""
        diffusion = self.diffusion
        if y_sem is None:
            return lambda x_t, t: diffusion.noise(diffusion.denoiser.trunk(x_t, t), x_t, t)
        return lambda x_t, t: self.noises(x_t, t, [y_sem])[0]


def build_diffusion(config: dict[str, Any]) -> LatentDiffusion:
    """Build stage 1 from its config: `unet`, `diffusion`, `prediction`, `shift`, `scale`."""
    return LatentDiffusion(
        Denoiser(UnetConfig(**_tuples(config["unet"]))),
        Schedule(**config["diffusion"]),
        Standardise(torch.tensor(config["shift"]), torch.tensor(config["scale"])),
        config["prediction"],
    )


def build_ldae(config: dict[str, Any]) -> Ldae:
    """Build both stages from a config that also has `encoder`."""
    diffusion = build_diffusion(config)
    unet = diffusion.denoiser.config
    encoder = _tuples(config["encoder"])
    return Ldae(
        diffusion,
        LatentEncoder(**encoder),
        GradientEstimator(unet, semantic_dim=encoder["dim"]),
    )


def unet_config(params: DenoiserParams, *, in_channels: int) -> dict[str, Any]:
    """Return the denoiser's architecture as JSON-able arguments."""
    return asdict(UnetConfig(in_channels=in_channels, **params.model_dump()))


def encoder_config(
    params: SemanticEncoderParams, *, latent_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return the semantic encoder's architecture as JSON-able arguments."""
    channels, *grid = latent_shape
    return {"in_channels": channels, "grid": tuple(grid)} | params.model_dump(exclude={"kind"})


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
