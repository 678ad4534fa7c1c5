"""Inference with autoencoder and LDAE: codes of latents (y_sem, x_T), and volumes from codes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline import __version__
from pipeline.diffusion.samplers import Model, Sampler, invert, sample
from pipeline.models.contrast import EVALUATE_ANY, check_contrast
from pipeline.models.frozen import (
    VOXELS,
    FrozenAutoencoder,
    FrozenLdae,
    load_autoencoder,
    load_ldae,
    on_grid,
    voxels_as_latents,
)
from pipeline.models.latent_fit import check_grid_fits
from pipeline.nets.centred import centred
from pipeline.runtime.devices import takes_bf16
from pipeline.runtime.digests import seed_from
from pipeline.runtime.progress import Progress
from pipeline.stores.latents import LatentStore
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError, ParamsError
from schemas.evaluation import EvaluateParams
from schemas.grid import Grid

LARGE_VOXELS = 1_000_000
"""Voxels of a volume above which it goes through the autoencoder alone, on the CPU."""


@dataclass(frozen=True, slots=True)
class Codes:
    """Codes of scans: y_sem and x_T, which together give back the latent."""

    y_sem: Float[Tensor, "B D"]
    x_T: Float[Tensor, "B C X Y Z"]  # noqa: N815 (as in the paper)
    """The inverted noise, which holds what y_sem leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LdaeInference:
    """An autoencoder, the LDAE trained on its latents, and the settings of the sampler."""

    autoencoder: FrozenAutoencoder
    ldae: FrozenLdae
    device: torch.device
    sampler: Sampler
    num_inference_steps: int
    batch_size: int
    """Scans that go through a network at a time."""
    clip_x0: float | None = None
    """Bound of the predicted z_0 in each step."""
    stop_percent: float = 0.0
    """Share of the timesteps, those next to the data, in which G is left out."""
    bf16: bool = False
    """Evaluate the networks of diffusion under bf16 autocast."""
    watched: bool = False
    """Show progress, sampler step by sampler step."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(channel, x, y, z)."""
        return self.autoencoder.latent_shape(self.autoencoder.grid.shape)

    def standardise(self, mean: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Return z_0 of posterior means, on the device."""
        z_0: Tensor = self.ldae.net.diffusion.standardise(mean.to(self.device).float())
        return z_0

    def unstandardise(self, z_0: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Return posterior means, as the latent store has them."""
        mean: Tensor = self.ldae.net.diffusion.standardise.inverse(z_0)
        return mean

    @property
    def reads_volumes(self) -> bool:
        """Whether the semantic encoder reads volumes, not latents."""
        return self.ldae.net.encoder.reads == "volume"

    @property
    def has_modes(self) -> bool:
        """Whether y_sem holds the amounts of principal modes, exact in sampling."""
        return self.ldae.net.estimator.modes is not None

    @torch.inference_mode()
    def mode_latent(self, y_sem: Float[Tensor, "B D"]) -> Float[Tensor, "B C X Y Z"]:
        """Return z_0 of the mean training latent plus what the modes of y_sem hold of a scan."""
        latent = self.ldae.net.estimator.mode_latent(y_sem)
        return centred(latent, self.latent_shape[1:])

    @torch.inference_mode()
    def embed(
        self, z_0: Float[Tensor, "B C x y z"], volumes: Float[Tensor, "B X Y Z"] | None = None
    ) -> Float[Tensor, "B D"]:
        """Return y_sem; an encoder that reads volumes gets `volumes`, or else the decoded ones."""
        size = self.batch_size
        parts = torch.split(z_0, size)
        given = [None] * len(parts) if volumes is None else list(torch.split(volumes, size))
        return torch.cat(
            [
                self.ldae.net.embed(part, partial(self._encoder_input, part, volume))
                for part, volume in zip(parts, given, strict=True)
            ]
        )

    def _encoder_input(
        self, z_0: Float[Tensor, "B C x y z"], volumes: Float[Tensor, "B X Y Z"] | None
    ) -> Float[Tensor, "B 1 X Y Z"]:
        read = self.decode(z_0) if volumes is None else volumes
        return read[:, None].to(self.device)

    @torch.inference_mode()
    def infer_codes(
        self, z_0: Float[Tensor, "B C x y z"], volumes: Float[Tensor, "B X Y Z"] | None = None
    ) -> Codes:
        """Return y_sem (from `volumes` if the encoder reads those) and the inverted x_T."""
        y_sem = self.embed(z_0, volumes)
        return Codes(y_sem, self.invert(y_sem, z_0))

    @torch.inference_mode()
    def invert(
        self, y_sem: Float[Tensor, "B D"] | None, z_0: Float[Tensor, "B C X Y Z"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the x_T from which `sample` gives z_0; without y_sem, by the denoiser alone."""
        with self._counted(self.noise_model(y_sem), "x_T by inversion", batches=1) as model:
            return invert(
                model,
                z_0,
                self.ldae.net.diffusion.schedule,
                sampler=self.sampler,
                num_inference_steps=self.num_inference_steps,
                clip_x0=self.clip_x0,
            )

    def noise_model(
        self, y_sem: Float[Tensor, "B D"] | None, *, modes_alone: bool = False
    ) -> Model:
        """Return the predicted noise of x_t at t, as the samplers call it."""
        model = self.ldae.net.model(y_sem, stop_percent=self.stop_percent, learned=not modes_alone)
        if not self.bf16:
            return model

        def rounded(x_t: Tensor, t: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16):
                return model(x_t, t).float()

        return rounded

    @torch.inference_mode()
    def sample(
        self,
        y_sem: Float[Tensor, "B D"] | None,
        x_T: Float[Tensor, "B C X Y Z"],
        *,
        modes_alone: bool = False,
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return z_0 from codes; without y_sem, by the denoiser alone.

        `modes_alone` leaves out the learned field of G: y_sem acts by its exact modes.
        """
        latents: list[Tensor] = []
        current: list[Model] = []
        batches = [
            slice(start, start + self.batch_size) for start in range(0, len(x_T), self.batch_size)
        ]
        with self._counted(
            lambda x, t: current[-1](x, t), "sampling", batches=len(batches)
        ) as model:
            for rows in batches:
                code = None if y_sem is None else y_sem[rows]
                current.append(self.noise_model(code, modes_alone=modes_alone))
                z_0 = sample(
                    model,
                    x_T[rows],
                    self.ldae.net.diffusion.schedule,
                    sampler=self.sampler,
                    num_inference_steps=self.num_inference_steps,
                    clip_x0=self.clip_x0,
                )
                latents.append(z_0)
        return torch.cat(latents)

    @contextmanager
    def _counted(self, model: Model, label: str, *, batches: int) -> Iterator[Model]:
        """Show progress while the block evaluates the model that is yielded, once a step."""
        if not self.watched:
            yield model
            return
        with Progress(label, total=batches * self.num_inference_steps) as bar:

            def counting(x: Tensor, t: Tensor) -> Tensor:
                noise = model(x, t)
                bar.advance()
                return noise

            yield counting

    def _through_autoencoder(self) -> int:
        """Return how many volumes go through the autoencoder at a time.

        Large ones one by one on the CPU, where more at once take memory and no less time.
        """
        large = math.prod(self.autoencoder.grid.shape) > LARGE_VOXELS
        return 1 if large and self.device.type == "cpu" else self.batch_size

    @torch.inference_mode()
    def decode(self, z_0: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B X Y Z"]:
        """Return volumes in [0, 1], on the host."""
        volumes = [
            self.autoencoder.net.decode(self.unstandardise(part)).float().clamp(0, 1).cpu()
            for part in torch.split(z_0, self._through_autoencoder())
        ]
        return torch.cat(volumes)[:, 0]

    @torch.inference_mode()
    def encode(self, volumes: Float[Tensor, "B X Y Z"]) -> Float[Tensor, "B C x y z"]:
        """Return z_0 of volumes in [0, 1], from latents rounded to float16 as in the store."""
        parts = torch.split(volumes.to(self.device)[:, None].float(), self._through_autoencoder())
        mean = torch.cat([self.autoencoder.net.encode(part)[0] for part in parts])
        return self.standardise(mean.half())

    def random_noise(self, *names: object) -> Float[Tensor, "1 C X Y Z"]:
        """Return noise that depends on the names alone, equal on every device."""
        generator = torch.Generator().manual_seed(seed_from("x_T", *names))
        return torch.randn((1, *self.latent_shape), generator=generator).to(self.device)

    def record(self) -> dict[str, Any]:
        """Return models and sampler settings, for the JSON beside an image."""
        imported = self.ldae.config.get("imported")
        return {
            **({"imported": imported} if imported else {}),
            "made_by": f"ldae-pipeline {__version__}",
            "models": {"autoencoder": self.autoencoder.digest, "ldae": self.ldae.digest},
            "sampler": self.sampler,
            "num_inference_steps": self.num_inference_steps,
            "clip_x0": self.clip_x0,
            "stop_percent": self.stop_percent,
            **({"precision": "bf16"} if self.bf16 else {}),
        }


def load_models(
    ae: Path,
    ldae: Path,
    params: EvaluateParams,
    *,
    device: torch.device,
    store: VolumeStore | LatentStore | None = None,
) -> LdaeInference:
    """Load an autoencoder and the LDAE trained on its latents, with sampler settings of `params`.

    They work on the grid of `store`, volumes or their latents; without it, on the LDAE's own.

    Raises
    ------
    ContractError
        If a folder holds no such model, the two do not belong together, or the LDAE does not work
        on the grid of the store, or was trained on another contrast.
    ParamsError
        If the number of steps is out of range.
    """
    # Its network is built when it is first used: who keeps what was made does not wait for MONAI.
    autoencoder = load_autoencoder(ae, device=device, at_use=True)
    frozen = load_ldae(ldae, device=device)
    if frozen.config["autoencoder_digest"] != autoencoder.digest:
        raise ContractError(
            f"{ldae}: trained on latents of another autoencoder than {ae}; give that one as --ae,"
            " or if it is the bundled one, --set autoencoder.source=bundled"
        )
    grid = Grid.model_validate(frozen.config["grid"])
    if store is not None:
        grid = store.attributes.grid
        if not params.any_contrast:
            check_contrast(
                frozen.config,
                store.attributes.contrast,
                source=store.path,
                model="the LDAE",
                allowed_by=[EVALUATE_ANY],
            )
    autoencoder = on_grid(autoencoder, grid)
    if store is not None:
        shape = autoencoder.latent_shape(grid.shape)
        check_grid_fits(frozen.config, grid, shape, source=str(store.path), model="the LDAE")
    return _models(autoencoder, frozen, params, device)


def load_voxel_models(
    voxel_dae: Path, grid: Grid, params: EvaluateParams, *, device: torch.device
) -> LdaeInference:
    """Load a voxel-space diffusion autoencoder (`pipeline train-voxel-dae`) of volumes on a grid.

    Raises
    ------
    ContractError
        If the folder holds no such model, or it was trained on another grid.
    ParamsError
        If the number of steps is out of range.
    """
    ldae = load_ldae(voxel_dae, device=device)
    if ldae.config["autoencoder_digest"] != VOXELS:
        raise ContractError(f"{voxel_dae}: an LDAE of latents; give the model of train-voxel-dae")
    if tuple(ldae.config["latent_shape"]) != (1, *grid.shape):
        raise ContractError(
            f"{voxel_dae}: trained on volumes of {ldae.config['latent_shape'][1:]}, these are of"
            f" {list(grid.shape)}; run `pipeline train-voxel-dae` on this store"
        )
    return _models(voxels_as_latents(grid, voxel_dae), ldae, params, device)


def _models(
    autoencoder: FrozenAutoencoder, ldae: FrozenLdae, params: EvaluateParams, device: torch.device
) -> LdaeInference:
    last = ldae.net.diffusion.schedule.num_train_timesteps - 1
    for steps in (params.num_inference_steps, *params.other_steps):
        if not 1 <= steps <= last:
            raise ParamsError(f"{steps} sampler steps: expected 1 to {last}")
    return LdaeInference(
        autoencoder=autoencoder,
        ldae=ldae,
        device=device,
        sampler=params.sampler,
        num_inference_steps=params.num_inference_steps,
        batch_size=params.batch_size,
        clip_x0=params.clip_x0,
        stop_percent=params.stop_percent,
        bf16=takes_bf16(params.precision, device),
    )
