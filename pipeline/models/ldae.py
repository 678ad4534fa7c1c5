"""The latent diffusion autoencoder: denoiser, semantic encoder, gradient estimator.

It works on standardised latents z_0 = (latent − shift) · scale; `Standardise` converts latents of
the store to them and back.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.diffusion.samplers import Model
from pipeline.diffusion.schedule import Schedule, alpha_sigma, per_sample
from pipeline.nets.centred import centred
from pipeline.nets.denoiser import Denoiser, GradientEstimator, Trunk, UnetConfig
from pipeline.nets.encoders import SemanticEncoder
from pipeline.nets.semantic import build_encoder
from schemas.diffusion import DenoiserParams, Prediction, SemanticEncoderParams
from schemas.errors import ContractError


class Standardise(nn.Module):
    """Shift and scale of latents, fitted on the training split, for each voxel or channel.

    Latents may be on a smaller grid with the same centre than those that were fitted on.
    """

    shift: Tensor
    scale: Tensor
    margin: Tensor
    """(C, 1, 1, 1): ratio of held-out to training standard deviation, for each channel."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("margin", torch.ones(shape[0], 1, 1, 1))

    def set_statistics(
        self,
        shift: Float[Tensor, "C X Y Z"],
        scale: Float[Tensor, "C X Y Z"],
        margin: Float[Tensor, "C 1 1 1"],
    ) -> None:
        """Set shift, scale and margin; axes of the first two may have length 1."""
        self.shift.copy_(shift)
        self.scale.copy_(scale)
        self.margin.copy_(margin)

    def forward(self, latent: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Return z_0."""
        z_0: Tensor = (latent - _at(self.shift, latent)) * _at(self.scale, latent)
        return z_0

    def scale_of(self, latent: Float[Tensor, "*B C X Y Z"]) -> Tensor:
        """Return the scale on the grid of a latent."""
        return _at(self.scale, latent)

    def inverse(self, z_0: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Return the latent."""
        return z_0 / _at(self.scale, z_0) + _at(self.shift, z_0)


def _at(statistic: Float[Tensor, "C _ _ _"], latent: Float[Tensor, "*B C X Y Z"]) -> Tensor:
    """Return a statistic on the grid of latents; one a channel serves every grid."""
    if statistic[0].numel() == 1:
        return statistic
    return centred(statistic, latent.shape[-3:])


class LatentDiffusion(nn.Module):
    """Stage 1: denoiser, noise schedule and latent statistics."""

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

    def eps(
        self, x_t: Float[Tensor, "B C X Y Z"], t: Float[Tensor, " B"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return eps_theta(x_t, t): the denoiser alone as a model for the samplers (LDDIM)."""
        return self.noise(self.denoiser.trunk(x_t, t), x_t, t)


class Ldae(nn.Module):
    """Stage 2: semantic encoder and gradient estimator on top of stage 1."""

    def __init__(
        self, diffusion: LatentDiffusion, encoder: SemanticEncoder, estimator: GradientEstimator
    ) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.encoder = encoder
        self.estimator = estimator

    def embed(
        self,
        z_0: Float[Tensor, "B C X Y Z"],
        volume: Callable[[], Float[Tensor, "B 1 x y z"]] | None = None,
    ) -> Float[Tensor, "B D"]:
        """Return y_sem of latents.

        `volume` returns their volumes in [0, 1]; it is called if the encoder reads volumes.

        Raises
        ------
        ContractError
            If the encoder reads volumes and there are none.
        """
        if self.encoder.reads == "latent":
            y_sem: Tensor = self.encoder(z_0)
            return y_sem
        if volume is None:
            raise ContractError(
                "this LDAE's semantic encoder reads volumes; give them with --volumes"
            )
        y_sem = self.encoder(volume())
        return y_sem

    def noises(
        self, x_t: Float[Tensor, "B C X Y Z"], t: Float[Tensor, " B"], codes: Sequence[Tensor]
    ) -> list[Float[Tensor, "B C X Y Z"]]:
        """Return eps_theta − sqrt(1 − alpha_bar_t) · G for several y_sem at one x_t.

        The denoiser and its features, most of the work, are computed once.
        """
        return self.guided(self.denoised(x_t, t), x_t, t, codes)

    def denoised(
        self, x_t: Float[Tensor, "B C X Y Z"], t: Float[Tensor, " B"]
    ) -> tuple[Trunk, Float[Tensor, "B C X Y Z"]]:
        """Return the denoiser's features at x_t and its noise: what no y_sem changes."""
        trunk = self.diffusion.denoiser.trunk(x_t, t)
        return trunk, self.diffusion.noise(trunk, x_t, t)

    def guided(
        self,
        denoised: tuple[Trunk | None, Float[Tensor, "B C X Y Z"]],
        x_t: Float[Tensor, "B C X Y Z"],
        t: Float[Tensor, " B"],
        codes: Sequence[Tensor],
        *,
        learned: bool = True,
    ) -> list[Float[Tensor, "B C X Y Z"]]:
        """Return the noises of `noises` from what `denoised` returned for the same x_t and t.

        Not `learned`, the field of G is left out: what is known in closed form is.
        """
        trunk, noise = denoised
        schedule = self.diffusion.schedule
        alpha, sigma = alpha_sigma(schedule.lambda_at(t))
        place = t / (schedule.num_train_timesteps - 1)
        loud = per_sample(sigma * self.estimator.gain_at(place), noise)

        def noise_of(y: Tensor) -> Tensor:
            mixed = self.estimator.mixed_noise(noise, x_t, y, alpha, sigma, place)
            if learned and trunk is not None:
                mixed = mixed - loud * self.estimator(trunk, y)
            return self.estimator.exact_noise(mixed, x_t, y, alpha, sigma)

        return [noise_of(y) for y in codes]

    def mode_noise(
        self, x_t: Float[Tensor, "B C X Y Z"], t: Float[Tensor, " B"], y_sem: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the noise with the learned field of G left out: what is known in closed form.

        That of the denoiser mixed with that of Gaussian latents, exact in the modes.
        """
        noise = self.diffusion.eps(x_t, t)
        return self.guided((None, noise), x_t, t, [y_sem], learned=False)[0]

    def noise_at(
        self,
        x_t: Float[Tensor, "B C X Y Z"],
        t: Float[Tensor, " B"],
        y_sem: Float[Tensor, "B D"],
        *,
        learned: bool = True,
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the noise of `noises`, or not `learned` of `mode_noise`, at one t of all x_t.

        Networks whose weight is 0 at that timestep are left out, which changes no bit: of the
        bundled LDAE the denoiser's decoder where there is much noise, and G where there is none.
        """
        place = t[:1] / (self.diffusion.schedule.num_train_timesteps - 1)
        learned = learned and bool(self.estimator.gain_at(place) != 0)
        trusted = self.estimator.trusts_denoiser(place)
        trunk = self.diffusion.denoiser.trunk(x_t, t) if learned or trusted else None
        noise = torch.zeros_like(x_t)
        if trunk is not None and trusted:
            noise = self.diffusion.noise(trunk, x_t, t)
        return self.guided((trunk, noise), x_t, t, [y_sem], learned=learned)[0]

    def model(
        self,
        y_sem: Float[Tensor, "B D"] | None,
        *,
        stop_percent: float = 0.0,
        learned: bool = True,
    ) -> Model:
        """Return eps(x_t, t) for the samplers; without y_sem the denoiser alone (LDDIM).

        `stop_percent` is the share of the timesteps, those next to the data, in which G is left out
        (Zhang et al. 2022). Not `learned`, y_sem acts by its modes alone.
        """
        if y_sem is None:
            return self.diffusion.eps
        stop = stop_percent * self.diffusion.schedule.num_train_timesteps

        def eps(x_t: Tensor, t: Tensor) -> Tensor:
            if t[0] < stop:
                return self.diffusion.eps(x_t, t)
            return self.noise_at(x_t, t, y_sem, learned=learned)

        return eps


def build_diffusion(config: dict[str, Any]) -> LatentDiffusion:
    """Build stage 1 from its config: `unet`, `diffusion`, `prediction`, `statistics`.

    `statistics` is the shape of shift and scale: (C, X, Y, Z), or (C, 1, 1, 1).
    """
    return LatentDiffusion(
        Denoiser(UnetConfig(**_tuples(config["unet"]))),
        Schedule(**config["diffusion"]),
        Standardise(tuple(config["statistics"])),
        config["prediction"],
    )


def build_ldae(config: dict[str, Any]) -> Ldae:
    """Build both stages from a config that also has `encoder`.

    Raises
    ------
    KeyError
        If its y_sem holds amounts of modes in the units of earlier versions: standard deviations.
    """
    diffusion = build_diffusion(config)
    unet = diffusion.denoiser.config
    architecture = _tuples(config["encoder"])
    if architecture.get("modes"):
        architecture["tissue_modes"]
    encoder = build_encoder(**architecture)
    estimator = GradientEstimator(
        unet,
        semantic_dim=encoder.dim,
        modes=architecture.get("modes", 0),
        grid=architecture.get("grid", ()),
    )
    return Ldae(diffusion, encoder, estimator)


def unet_config(params: DenoiserParams, *, in_channels: int) -> dict[str, Any]:
    """Return the denoiser's architecture as JSON-able arguments."""
    return asdict(UnetConfig(in_channels=in_channels, **params.model_dump()))


def encoder_config(
    params: SemanticEncoderParams,
    *,
    latent_shape: tuple[int, ...],
    volume_shape: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Return the semantic encoder's architecture as JSON-able arguments."""
    shared = {"kind", "channels", "dim", "num_heads"}
    if params.reads_volumes:
        assert volume_shape is not None
        depth = min(params.num_slices or volume_shape[-1], volume_shape[-1])
        config = params.model_dump(include=shared)
        return config | {"depths": params.depths, "num_slices": depth}
    channels, *grid = latent_shape
    return params.model_dump(include=shared) | {
        "modes": params.used_modes,
        "tissue_modes": params.used_tissue_modes,
        "in_channels": channels,
        "grid": tuple(grid),
    }


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
