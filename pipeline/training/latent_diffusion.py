"""Stage 1 (denoiser) and stage 2 (semantic encoder, gradient estimator), purely from latents."""

import logging
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.artefact import finished_metrics, write_artefact
from pipeline.compute import available_memory, digest_of
from pipeline.diffusion.losses import (
    min_snr_weight,
    noise_loss,
    pdae_weight,
    shift_coefficient,
    velocity,
)
from pipeline.diffusion.schedule import per_sample
from pipeline.frozen import FrozenDiffusion
from pipeline.ldae import LatentDiffusion, build_diffusion, build_ldae, encoder_config, unet_config
from pipeline.nets.denoiser import Trunk
from pipeline.stores.latents import MEMORY_SHARE, LatentStore
from pipeline.stores.streaming import StreamedLatents
from pipeline.stores.verify import refuse_hurt
from pipeline.training.autoencoder import final_metrics
from pipeline.training.batches import WINDOW_CHUNKS, batch_rows, step_generator
from pipeline.training.fit import fit
from pipeline.training.module import StepModule
from pipeline.training.standardisation import AnyLatents, fit_deviations, fit_standardisation
from schemas.errors import ContractError
from schemas.params import TrainLdaeParams, TrainLdmParams
from schemas.section import OptimParams

log = logging.getLogger(__name__)

VAL_TIMESTEPS = 16
"""Timesteps, evenly spread, at which every validation scan is judged with fixed noise."""
MAX_CODE_SCANS = 1024
"""Training scans, evenly spread, over which y_sem is standardised."""
CODE_BATCH = 16
MAX_VAL_SCANS = 12
"""Validation scans judged; a validation should cost less than the steps between two of them."""


class _LatentModule(StepModule):
    """Draws a step's (z_0, x_t, t, eps) from resident latents."""

    def __init__(
        self,
        net: nn.Module,
        params: OptimParams,
        diffusion: LatentDiffusion,
        latents: dict[str, AnyLatents],
        posterior: Literal["sample", "mean"],
    ) -> None:
        super().__init__(net, params)
        self.latents = latents
        self.posterior = posterior
        self.batch_size = min(params.batch_size, len(latents["train"]))
        if self.batch_size < params.batch_size:
            log.warning(
                "only %d training scans: batch_size lowered from %d",
                self.batch_size,
                params.batch_size,
            )
        self._diffusion = [diffusion]

    @property
    def diffusion(self) -> LatentDiffusion:
        """Stage 1; not registered, so that it is neither averaged nor checkpointed twice."""
        return self._diffusion[0]

    def on_fit_start(self) -> None:
        """Bring what is not a trained weight to the device."""
        self.diffusion.to(self.device)
        self.latents = {split: x.to(self.device) for split, x in self.latents.items()}

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return (posterior mean, z_0, x_t, t, eps) of a training step, both standardised."""
        train, params = self.latents["train"], self.params
        index = batch_rows(
            step,
            num_rows=len(train),
            batch_size=self.batch_size,
            seed=params.seed,
            chunks=train.chunks,
        ).to(self.device)
        generator = step_generator(step, seed=params.seed, device=self.device)
        mean = z_0 = self.diffusion.standardise(train.take_mean(index))
        if self.posterior == "sample":
            z_0 = self.diffusion.standardise(train.draw(index, generator=generator))
        schedule = self.diffusion.schedule
        t = torch.randint(
            schedule.num_train_timesteps, (len(z_0),), generator=generator, device=self.device
        )
        eps = torch.randn(z_0.shape, generator=generator, device=self.device)
        return mean, z_0, schedule.add_noise(z_0, eps, t), t, eps

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
        index = torch.tensor([scan], device=self.device)
        z_0: Tensor = self.diffusion.standardise(self.latents["val"].take_mean(index))
        return z_0


class DenoiserModule(_LatentModule):
    """Stage 1: E‖target − network(x_t, t)‖², target eps or v, weighted by min-SNR where asked."""

    params: TrainLdmParams

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
        _, *batch = self.draw(step)
        return {"loss": self._loss(self.net, *batch)}

    def compute_validation(self) -> dict[str, float]:
        """Return the loss of the averaged and of the raw denoiser on validation scans."""

        def losses(scan: int, x_t: Tensor, t: Tensor, eps: Tensor) -> dict[str, Tensor]:
            batch = (self.validation_z_0(scan), x_t, t, eps)
            return {
                "loss": self._loss(self.averaged, *batch),
                "loss_raw": self._loss(self.net, *batch),
            }

        return self.mean_over_validation(losses)


class SemanticModule(_LatentModule):
    """Stage 2: mean of lambda_t ‖eps − (eps_theta + c_t G(x_t, t, y_sem))‖², denoiser frozen."""

    params: TrainLdaeParams

    def _noise(self, x_t: Tensor, t: Tensor) -> tuple[Trunk, Tensor]:
        """Return the frozen denoiser's features and its noise."""
        with torch.no_grad():
            trunk = self.diffusion.denoiser.trunk(x_t, t.float())
            return trunk, self.diffusion.noise(trunk, x_t, t.float()).float()

    def _gradient(self, net: Any, trunk: Trunk, z_0: Tensor) -> Tensor:
        gradient: Tensor = net["estimator"](trunk, net["encoder"](z_0)).float()
        return gradient

    def _loss(self, noise: Tensor, gradient: Tensor | float, t: Tensor, eps: Tensor) -> Tensor:
        schedule = self.diffusion.schedule
        c_t = per_sample(shift_coefficient(schedule, t, self.params.shift), noise)
        weight = pdae_weight(schedule, t) if self.params.weighting == "pdae" else None
        return noise_loss(noise + c_t * gradient, eps, weight)

    def fit_averaged_codes(self) -> None:
        """Standardise y_sem of the averaged encoder: weights were averaged, statistics not."""
        train = self.latents["train"]
        rows = torch.linspace(0, len(train) - 1, min(len(train), MAX_CODE_SCANS)).long()
        self.averaged["encoder"].fit_output(
            self.diffusion.standardise(train.take_mean(index)).to(self.device)
            for index in rows.tensor_split(math.ceil(len(rows) / CODE_BATCH))
        )

    def compute_losses(self, step: int) -> dict[str, Tensor]:
        """Return the weighted loss."""
        mean, _, x_t, t, eps = self.draw(step)
        trunk, noise = self._noise(x_t, t)
        gradient = self._gradient(self.net, trunk, mean)
        return {"loss": self._loss(noise, gradient, t, eps)}

    def compute_validation(self) -> dict[str, float]:
        """Return losses on validation scans that tell whether y_sem is used.

        `loss` with the scan's own y_sem, `loss_shuffled` with that of the validation scan half the
        list away, `loss_without` with G = 0, and `loss_raw` with the weights that are not averaged.
        """
        self.fit_averaged_codes()
        count = len(self.latents["val"])

        def losses(scan: int, x_t: Tensor, t: Tensor, eps: Tensor) -> dict[str, Tensor]:
            trunk, noise = self._noise(x_t, t)

            def judge(net: Any, source: int) -> Tensor:
                z_0 = self.validation_z_0(source).expand(len(t), -1, -1, -1, -1)
                return self._loss(noise, self._gradient(net, trunk, z_0), t, eps)

            return {
                "loss": judge(self.averaged, scan),
                "loss_shuffled": judge(self.averaged, (scan + count // 2) % count),
                "loss_without": self._loss(noise, 0.0, t, eps),
                "loss_raw": judge(self.net, scan),
            }

        return self.mean_over_validation(losses)


def train_denoiser(
    store: LatentStore,
    scan_ids: dict[str, list[str]],
    params: TrainLdmParams,
    out: Path,
    *,
    device: torch.device,
) -> dict[str, Any]:
    """Train stage 1 and write it; return its metrics.

    Raises
    ------
    ContractError
        If fewer than two training scans are in the store, or a latent is not finite.
    """
    fingerprint = digest_of([params.model_dump(), store.digest, scan_ids])
    finished = finished_metrics(out, kind="ldm", fingerprint=fingerprint)
    if finished is not None:
        return finished
    latents = _load(store, scan_ids)
    shift, scale = fit_standardisation(latents["train"], params.scale)
    architecture = {
        "unet": unet_config(params.denoiser, in_channels=store.latent_shape[0]),
        "diffusion": params.diffusion.model_dump(),
        "prediction": params.prediction,
        "shift": shift,
        "scale": scale,
    }
    torch.manual_seed(params.seed)
    diffusion = build_diffusion(architecture)
    module = DenoiserModule(diffusion.denoiser, params, diffusion, latents, params.posterior)
    fit(module, out, fingerprint=fingerprint, device=device)
    metrics = final_metrics(module)
    diffusion.denoiser.load_state_dict(module.averaged.state_dict())
    config = {"fingerprint": fingerprint}
    config |= _config(architecture, params, store, latents, metrics)
    card = _card("Latent diffusion model (stage 1)", config)
    tensors = diffusion.denoiser.state_dict()
    write_artefact(out, kind="ldm", tensors=tensors, config=config, metrics=metrics, card=card)
    return metrics


def train_ldae(
    store: LatentStore,
    scan_ids: dict[str, list[str]],
    frozen: FrozenDiffusion,
    params: TrainLdaeParams,
    out: Path,
    *,
    device: torch.device,
) -> dict[str, Any]:
    """Train stage 2 on a frozen denoiser and write both; return the metrics.

    Raises
    ------
    ContractError
        If the denoiser was trained on latents of another autoencoder, or there are too few scans.
    """
    if frozen.config["autoencoder_digest"] != store.attributes.digests["autoencoder"]:
        raise ContractError(
            f"{store.path}: encoded by another autoencoder than the denoiser was trained on;"
            " run `pipeline train-ldm` on this store"
        )
    fingerprint = digest_of([params.model_dump(), store.digest, frozen.digest, scan_ids])
    finished = finished_metrics(out, kind="ldae", fingerprint=fingerprint)
    if finished is not None:
        return finished
    latents = _load(store, scan_ids)
    base = {k: frozen.config[k] for k in ("unet", "diffusion", "prediction", "shift", "scale")}
    architecture = base | {
        "encoder": encoder_config(params.encoder, latent_shape=store.latent_shape)
    }
    torch.manual_seed(params.seed)
    ldae = build_ldae(architecture)
    ldae.diffusion = frozen.diffusion
    ldae.diffusion.requires_grad_(False).eval()
    centre, spread = fit_deviations(latents["train"])
    standardise = ldae.diffusion.standardise.cpu()
    ldae.encoder.fit_input(standardise(centre), spread * standardise.scale.flatten())
    net = nn.ModuleDict({"encoder": ldae.encoder, "estimator": ldae.estimator})
    module = SemanticModule(net, params, ldae.diffusion, latents, frozen.config["posterior"])
    fit(module, out, fingerprint=fingerprint, device=device)
    module.fit_averaged_codes()
    metrics = final_metrics(module)
    ldae.encoder.load_state_dict(module.averaged["encoder"].state_dict())
    ldae.estimator.load_state_dict(module.averaged["estimator"].state_dict())
    ldae.to("cpu")
    tensors = {f"denoiser.{k}": v for k, v in ldae.diffusion.denoiser.state_dict().items()}
    tensors |= {f"encoder.{k}": v for k, v in ldae.encoder.state_dict().items()}
    tensors |= {f"estimator.{k}": v for k, v in ldae.estimator.state_dict().items()}
    config = {"fingerprint": fingerprint}
    config |= _config(architecture, params, store, latents, metrics)
    config["posterior"] = frozen.config["posterior"]
    card = _card("Latent diffusion autoencoder (stages 1 and 2)", config)
    write_artefact(out, kind="ldae", tensors=tensors, config=config, metrics=metrics, card=card)
    return metrics


def _load(store: LatentStore, scan_ids: dict[str, list[str]]) -> dict[str, AnyLatents]:
    present = {
        split: [s for s in scan_ids[split] if s in store.row_of] for split in ("train", "val")
    }
    if len(present["train"]) < 2:
        raise ContractError(
            f"{store.path}: {len(present['train'])} training scans, expected at least 2;"
            " check the manifest's split and the quarantine list"
        )
    refuse_hurt(store)
    needed = store.bytes_of(sum(len(ids) for ids in present.values()))
    if needed <= MEMORY_SHARE * available_memory():
        return {split: store.load(ids) for split, ids in present.items()}
    log.info("%s: %.1f GB do not fit in memory, read as needed", store.path, needed / 1e9)
    return {
        split: StreamedLatents(store, ids, chunks_in_memory=WINDOW_CHUNKS)
        for split, ids in present.items()
    }


def _config(
    architecture: dict[str, Any],
    params: OptimParams,
    store: LatentStore,
    latents: dict[str, AnyLatents],
    metrics: dict[str, Any],
) -> dict[str, Any]:
    dumped = params.model_dump(mode="json")
    return architecture | {
        "posterior": dumped.get("posterior"),
        "params": dumped,
        "autoencoder_digest": store.attributes.digests["autoencoder"],
        "latents_digest": store.digest,
        "latent_shape": store.latent_shape,
        "train_scans": len(latents["train"]),
        "metrics": {k: v for k, v in metrics.items() if k != "seconds"},
    }


def _card(title: str, config: dict[str, Any]) -> str:
    figures = "\n".join(f"- {k}: {v}" for k, v in config["metrics"].items())
    return f"""# {title}

Trained on {config["train_scans"]} latents of shape {list(config["latent_shape"])} that the
autoencoder {config["autoencoder_digest"][:12]} made; it works with that autoencoder alone.

Last figures (losses; val_ on validation scans):

{figures}

Method: Lozupone et al. 2025 (arXiv 2504.08635), Zhang et al. 2022 (arXiv 2212.12990). Licence:
that of the data it was trained on; the code is Apache-2.0. Not a medical device.
"""
