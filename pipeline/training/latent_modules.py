"""Lightning modules of stage 1 (denoiser) and stage 2 (semantic encoder, gradient estimator)."""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.cohort.subjects import scans_of_others, subjects_of
from pipeline.diffusion.gain_fit import LEAST_PEOPLE, MOST_GAIN, weights_at_nodes
from pipeline.diffusion.losses import (
    min_snr_weight,
    noise_loss,
    pdae_weight,
    shift_coefficient,
    velocity,
)
from pipeline.diffusion.samplers import invert, sample
from pipeline.diffusion.schedule import alpha_sigma, per_sample
from pipeline.metrics.gaussianity import latent_health
from pipeline.models.ldae import LatentDiffusion, Ldae
from pipeline.nets.denoiser import Trunk
from pipeline.nets.gaussian_prior import NODES
from pipeline.training.batches import batch_rows, step_generator
from pipeline.training.latent_batches import LatentBatch, LatentData
from pipeline.training.standardisation import AnyLatents
from pipeline.training.step_module import StepModule
from schemas.diffusion import LdaeParams, LdmParams
from schemas.section import OptimParams

log = logging.getLogger(__name__)

VAL_TIMESTEPS = 8
"""Timesteps, evenly spread, at which every validation scan is scored with fixed noise."""
MAX_CODE_SCANS = 1024
"""Training scans, evenly spread, over which y_sem is standardised."""
VAL_CODE_SCANS = 128
"""The same for a validation on the way."""
CODE_BATCH = 16
MAX_VAL_SCANS = 12
"""Validation scans scored; a validation should cost less than the steps between two of them."""
PICTURE_SCANS = 3
PICTURE_STEPS = 10
HEALTH_SCANS = 4
HEALTH_STEPS = 20


class LatentModule(StepModule):
    """A network that is trained on z_0 of latents, noised: what stages 1 and 2 share."""

    def __init__(
        self, net: nn.Module, params: OptimParams, data: LatentData, *, started: bool = False
    ) -> None:
        super().__init__(net, params)
        self.data = data
        self.started = started
        """Whether the weights are those of a finished model."""
        self.batch_size = self.divisible(params.batch_size)
        train = len(data.latents["train"])
        if train < params.batch_size:
            self.batch_size = self.divisible(max(train - train % self.parts, self.parts))
            log.warning(
                "only %d training scans: batch_size lowered from %d to %d",
                train,
                params.batch_size,
                self.batch_size,
            )

    @property
    def diffusion(self) -> LatentDiffusion:
        """Stage 1."""
        return self.data.diffusion

    @property
    def latents(self) -> dict[str, AnyLatents]:
        """The latents of each split."""
        return self.data.latents

    @property
    def validates_start(self) -> bool:
        """A finished model is worth keeping where training does not help unseen people."""
        return self.started

    def on_fit_start(self) -> None:
        """Bring what is not a trained weight to the device."""
        self.data.to(self.device)
        super().on_fit_start()

    def batch(self, step: int) -> LatentBatch:
        """Return the batch of a training step."""
        train, params = self.latents["train"], self.params
        index = batch_rows(
            step,
            num_rows=len(train),
            batch_size=self.batch_size,
            seed=params.seed,
            chunks=train.chunks,
        ).to(self.device)
        generator = step_generator(step, seed=params.seed, device=self.device)
        z_0 = self.data.training_z_0(index, generator)
        schedule = self.diffusion.schedule
        t = torch.randint(
            schedule.num_train_timesteps, (len(z_0),), generator=generator, device=self.device
        )
        eps = torch.randn(z_0.shape, generator=generator, device=self.device)
        z_0, t, eps = self.local_rows(z_0), self.local_rows(t), self.local_rows(eps)
        return LatentBatch(index, z_0, schedule.add_noise(z_0, eps, t), t, eps, generator)

    def mean_over_validation(
        self, losses: Callable[[int, Tensor, Tensor, Tensor], dict[str, Tensor]]
    ) -> dict[str, float]:
        """Return means of losses(scan, x_t, t, eps) over validation scans and fixed noise."""
        schedule = self.diffusion.schedule
        t = torch.linspace(0, schedule.num_train_timesteps - 1, VAL_TIMESTEPS).long()
        t = t.to(self.device)
        totals: dict[str, float] = defaultdict(float)
        count = min(len(self.latents["val"]), MAX_VAL_SCANS)
        for i in range(count):
            z_0 = self.validation_z_0(i).expand(VAL_TIMESTEPS, -1, -1, -1, -1)
            generator = step_generator(i, seed=-1, device=self.device)
            eps = torch.randn(z_0.shape, generator=generator, device=self.device)
            with torch.no_grad():
                for name, value in losses(i, schedule.add_noise(z_0, eps, t), t, eps).items():
                    totals[name] += float(value) / count
        return dict(totals)

    def validation_z_0(self, scan: int) -> Tensor:
        """Return the standardised posterior mean of a validation scan, (1, C, X, Y, Z)."""
        return self.data.fixed_z_0("val", torch.tensor([scan], device=self.device))

    def validation_latents(self, most: int) -> Tensor | None:
        """Return z_0 of the first validation scans, or None where there is none."""
        count = min(len(self.latents["val"]), most)
        return (
            self.data.fixed_z_0("val", torch.arange(count, device=self.device)) if count else None
        )

    def fixed_noise(self, shape: torch.Size) -> Tensor:
        """Return the same x_T at every call."""
        generator = step_generator(0, seed=-2, device=self.device)
        return torch.randn(shape, generator=generator, device=self.device)


class DenoiserModule(LatentModule):
    """Stage 1: E‖target − network(x_t, t)‖², target eps or v, weighted by min-SNR where asked."""

    params: LdmParams

    def _loss(self, net: nn.Module, z_0: Tensor, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        params, schedule = self.params, self.diffusion.schedule
        target = eps if params.prediction == "epsilon" else velocity(schedule, z_0, eps, t)
        weight = None
        if params.min_snr_gamma is not None:
            weight = min_snr_weight(
                schedule, t, gamma=params.min_snr_gamma, prediction=params.prediction
            )
        return noise_loss(net(x_t, t.float()), target, weight)

    def compute_losses(self, step: int) -> dict[str, Tensor]:
        """Return the loss of a training batch."""
        batch = self.batch(step)
        return {"loss": self._loss(self.net, batch.z_0, batch.x_t, batch.t, batch.eps)}

    def compute_validation(self) -> dict[str, float]:
        """Return the loss of the averaged and of the raw denoiser on validation scans."""

        def losses(scan: int, x_t: Tensor, t: Tensor, eps: Tensor) -> dict[str, Tensor]:
            batch = (self.validation_z_0(scan), x_t, t, eps)
            return {
                "loss": self._loss(self.averaged, *batch),
                "loss_raw": self._loss(self.net, *batch),
            }

        return self.mean_over_validation(losses)

    @torch.no_grad()
    def pictures(self) -> dict[str, Tensor]:
        """Return samples of the averaged denoiser, and validation latents beside them."""
        z_0 = self.validation_latents(PICTURE_SCANS)
        if z_0 is None:
            return {}
        stage = self.diffusion
        averaged = LatentDiffusion(
            self.averaged, stage.schedule, stage.standardise, stage.prediction
        )
        x_T = self.fixed_noise(z_0.shape)
        options: Any = {"sampler": "dpm", "num_inference_steps": PICTURE_STEPS}
        return {
            "validation scan": z_0,
            "sample": sample(averaged.eps, x_T, stage.schedule, **options),
        }


class SemanticModule(LatentModule):
    """Stage 2: mean of lambda_t ‖eps − (eps_theta + c_t G(x_t, t, y_sem))‖², denoiser frozen."""

    params: LdaeParams

    def semantic_input(self, split: str, index: Tensor) -> Tensor:
        """Return the semantic encoder's input for these scans: z_0, or volumes in [0, 1]."""
        return self.data.semantic_input(split, index, self.device)

    def _noise(self, x_t: Tensor, t: Tensor) -> tuple[Trunk, Tensor]:
        """Return the frozen denoiser's features and its noise."""
        with torch.no_grad():
            trunk = self.diffusion.denoiser.trunk(x_t, t.float())
            return trunk, self.diffusion.noise(trunk, x_t, t.float()).float()

    @property
    def validates_start(self) -> bool:
        """With exact modes the start is worth keeping: training learns what they leave over."""
        return self.started or self.averaged["estimator"].modes is not None

    def _guided(
        self,
        estimator: Any,
        noise: Tensor,
        gradient: Tensor,
        x_t: Tensor,
        y_sem: Tensor,
        t: Tensor,
    ) -> Tensor:
        """Return the noise predicted with G, exact in the subspace of y_sem's modes."""
        schedule = self.diffusion.schedule
        alpha, sigma = alpha_sigma(schedule.lambda_at(t.float()))
        c_t = per_sample(shift_coefficient(schedule, t, self.params.shift), noise)
        place = t / (schedule.num_train_timesteps - 1)
        mixed = estimator.mixed_noise(noise, x_t, y_sem, alpha, sigma, place)
        guided: Tensor = estimator.exact_noise(mixed + c_t * gradient, x_t, y_sem, alpha, sigma)
        return guided

    def _loss(self, predicted: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        weight = None
        if self.params.weighting == "pdae":
            weight = pdae_weight(self.diffusion.schedule, t)
        return noise_loss(predicted, eps, weight)

    def estimate_code_statistics(self, max_scans: int = MAX_CODE_SCANS) -> None:
        """Standardise y_sem of the averaged encoder: weights were averaged, statistics not."""
        train = self.latents["train"]
        rows = torch.linspace(0, len(train) - 1, min(len(train), max_scans)).long()
        device = next(self.averaged.parameters()).device

        def batches() -> Iterator[Tensor]:
            for index in rows.tensor_split(math.ceil(len(rows) / CODE_BATCH)):
                yield self.semantic_input("train", index).to(device)

        self.averaged["encoder"].estimate_output_statistics(batches())

    def compute_losses(self, step: int) -> dict[str, Tensor]:
        """Return the weighted loss."""
        batch, net = self.batch(step), self._nets
        if net["encoder"].mixes_batch:
            # Its statistics are those of the whole batch, however that is cut into parts.
            y_sem = net["encoder"](self.semantic_input("train", batch.index))
            told = self.local_rows(net["encoder"].with_mode_noise(y_sem, batch.generator))
            y_sem = self.local_rows(y_sem)
        else:
            y_sem = net["encoder"](self.semantic_input("train", self.local_rows(batch.index)))
            told = y_sem
        trunk, noise = self._noise(batch.x_t, batch.t)
        gradient = net["estimator"](trunk, told).float()
        predicted = self._guided(net["estimator"], noise, gradient, batch.x_t, y_sem, batch.t)
        return {"loss": self._loss(predicted, batch.t, batch.eps)}

    @property
    def _nets(self) -> Any:
        return self.net

    def compile_nets(self) -> None:
        """Compile the trained parts and the frozen ones."""
        for net in (*self._nets.values(), self.diffusion.denoiser.encoder):
            net.compile()
        self.diffusion.denoiser.decoder.compile()

    def compute_validation(self) -> dict[str, float]:
        """Return losses on validation scans, with and without the right y_sem.

        `loss` with the scan's own y_sem, `loss_shuffled` with that of another subject's scan,
        `loss_without` with G = 0, and `loss_raw` with the weights that are not averaged.
        """
        self.estimate_code_statistics(VAL_CODE_SCANS)
        others = scans_of_others(subjects_of(self.latents["val"].scan_ids))

        def losses(scan: int, x_t: Tensor, t: Tensor, eps: Tensor) -> dict[str, Tensor]:
            trunk, noise = self._noise(x_t, t)

            def loss_with(net: Any, encoded_scan: int) -> Tensor:
                given = self.semantic_input("val", torch.tensor([encoded_scan], device=self.device))
                y_sem = net["encoder"](given).expand(len(t), -1)
                gradient = net["estimator"](trunk, y_sem).float()
                guided = self._guided(net["estimator"], noise, gradient, x_t, y_sem, t)
                return self._loss(guided, t, eps)

            values = {
                "loss": loss_with(self.averaged, scan),
                "loss_without": self._loss(noise, t, eps),
                "loss_raw": loss_with(self.net, scan),
            }
            if others:
                values["loss_shuffled"] = loss_with(self.averaged, others[scan])
            return values

        return self.mean_over_validation(losses)

    def fit_trust(self) -> None:
        """Mix the denoiser with Gaussian latents as the noise of validation people asks for.

        Before training, which learns what this leaves over; see `gain_fit.best_gain`. With fewer
        than LEAST_PEOPLE the denoiser is trusted fully.
        """

        def trusted(ldae: Ldae, weight: float, *given: Tensor) -> Tensor:
            ldae.estimator.prior.trust.fill_(weight)
            return ldae.mode_noise(*given)

        trust = self._weights_at_nodes(
            lambda ldae, *x: (trusted(ldae, 0, *x), trusted(ldae, 1, *x)), 1
        )
        if trust is not None:
            for net in (self._nets, self.averaged):
                net["estimator"].prior.trust.copy_(trust)

    def fit_gain(self) -> None:
        """Scale G's field at each timestep as the noise of validation people asks for.

        See `gain_fit.best_gain`; fewer than LEAST_PEOPLE leave it as it was trained.
        """
        gain = self._weights_at_nodes(
            lambda ldae, x_t, t, y: (ldae.mode_noise(x_t, t, y), ldae.noises(x_t, t, [y])[0]),
            MOST_GAIN,
        )
        if gain is not None:
            self.averaged["estimator"].gain.copy_(gain)

    @torch.no_grad()
    def _weights_at_nodes(
        self, with_and_without: Callable[..., tuple[Tensor, Tensor]], most: float
    ) -> Tensor | None:
        """Return the best weights on validation people; None if they are few, or without modes."""
        scan_ids = self.latents["val"].scan_ids[:MAX_VAL_SCANS]
        people = subjects_of(scan_ids)
        if self.averaged["estimator"].modes is None or len(set(people)) < LEAST_PEOPLE:
            return None
        ldae, y_sem = self._averaged_ldae(len(scan_ids))
        schedule = self.diffusion.schedule
        steps = torch.linspace(0, schedule.num_train_timesteps - 1, NODES).long().to(self.device)

        def scans() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for i, code in enumerate(y_sem):
                z_0 = self.validation_z_0(i)
                generator = step_generator(i, seed=-3, device=self.device)
                shape = (NODES, *z_0.shape[1:])
                yield z_0, code[None], torch.randn(shape, generator=generator, device=self.device)

        pair = partial(with_and_without, ldae)
        found = weights_at_nodes(scans(), people, schedule, steps, pair, most=most)
        return found.float().to(self.device)

    def _averaged_ldae(self, count: int) -> tuple[Ldae, Tensor]:
        """Return the averaged LDAE and y_sem of the first validation scans."""
        ldae = Ldae(self.diffusion, self.averaged["encoder"], self.averaged["estimator"])
        return ldae, ldae.encoder(self.semantic_input("val", torch.arange(count)))

    @torch.no_grad()
    def pictures(self) -> dict[str, Tensor]:
        """Return validation latents, and samples of their y_sem with inverted and random x_T."""
        z_0 = self.validation_latents(PICTURE_SCANS)
        if z_0 is None:
            return {}
        ldae, y_sem = self._averaged_ldae(len(z_0))
        model, schedule = ldae.model(y_sem), self.diffusion.schedule
        options: Any = {"sampler": "dpm", "num_inference_steps": PICTURE_STEPS}
        inverted = invert(model, z_0, schedule, **options)
        return {
            "validation scan": z_0,
            "y_sem, inverted x_T": sample(model, inverted, schedule, **options),
            "y_sem, random x_T": sample(model, self.fixed_noise(z_0.shape), schedule, **options),
        }

    @torch.no_grad()
    def inversion_health(self) -> dict[str, float]:
        """Return mean, std and kurtosis of the x_T that validation latents are inverted to."""
        z_0 = self.validation_latents(HEALTH_SCANS)
        if z_0 is None:
            return {}
        ldae, y_sem = self._averaged_ldae(len(z_0))
        x_T = invert(
            ldae.model(y_sem),
            z_0,
            self.diffusion.schedule,
            sampler="dpm",
            num_inference_steps=HEALTH_STEPS,
        )
        return {f"x_T_{name}": value for name, value in latent_health(x_T).items()}
