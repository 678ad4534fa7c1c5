"""Train the compression autoencoder on volumes."""

import inspect
import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.cohort.subjects import many_subjects_first, subjects_of
from pipeline.imaging.augment import augment
from pipeline.metrics.ssim import ssim_map
from pipeline.models.artefact import write_artefact
from pipeline.models.frozen import FrozenAutoencoder
from pipeline.models.frozen import architecture as architecture_of
from pipeline.models.model_folder import check_model_folder, finished_metrics
from pipeline.models.pretrained import load_lpips
from pipeline.nets.autoencoder import Autoencoder
from pipeline.nets.resize_latent_channels import add_latent_channels, remove_latent_channels
from pipeline.runtime.digests import digest_file, digest_of, seed_from
from pipeline.stores.volumes import VolumeStore
from pipeline.training.autoencoder_losses import Adversary, PerceptualLoss
from pipeline.training.batches import batch_rows, step_generator
from pipeline.training.distributed import processes
from pipeline.training.lightning_run import discard_checkpoints, run_training
from pipeline.training.plan import Plan
from pipeline.training.step_module import StepModule
from pipeline.training.training_volumes import ResidentVolumes
from schemas.autoencoder import TrainAeParams
from schemas.errors import ContractError

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
MAX_VAL_SCANS = 8


class AutoencoderModule(StepModule):
    """L1, SSIM inside the brain, KL, and where asked for perceptual and adversarial terms."""

    early_stop_metric = "l1"

    net: Autoencoder
    params: TrainAeParams
    adversary: Adversary | None
    resident: ResidentVolumes

    def __init__(
        self,
        net: Autoencoder,
        params: TrainAeParams,
        volumes: VolumeStore,
        train_rows: list[int],
        val_rows: list[int],
    ) -> None:
        super().__init__(net, params)
        self.divisible(params.batch_size)
        perceptual = params.perceptual
        self.perceptual: PerceptualLoss | None = None
        if perceptual.weights:
            lpips = load_lpips(perceptual.weights, device=CPU)
            self.perceptual = PerceptualLoss(lpips, perceptual.slices)
        self.adversary = Adversary(params.adversarial) if params.adversarial.weight else None
        self.volumes = volumes
        self.train_rows = train_rows
        self.val_rows = val_rows[:MAX_VAL_SCANS]

    def on_fit_start(self) -> None:
        """Bring what is not trained, so not checkpointed either, to the device."""
        super().on_fit_start()
        self.resident = ResidentVolumes(self.volumes, self.device)
        if self.perceptual is not None:
            self.perceptual.to(self.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the autoencoder's weights and the discriminator's."""
        groups = super().parameter_groups()
        if self.adversary is not None:
            weights = list(self.adversary.parameters())
            groups.append({"params": weights, "lr": self.params.adversarial.lr})
        return groups

    def _batch(self, step: int, generator: torch.Generator) -> Float[Tensor, "B 1 X Y Z"]:
        params = self.params
        picked = batch_rows(
            step, num_rows=len(self.train_rows), batch_size=params.batch_size, seed=params.seed
        )
        x = self.resident.take([self.train_rows[i] for i in self.local_rows(picked).tolist()])
        if params.flip:
            flips = torch.rand(len(x), generator=generator, device=self.device) < 0.5
            x = torch.where(flips[:, None, None, None, None], x.flip(2), x)
        if params.augment > 0:
            x = augment(x, params.augment, generator)
        if params.crop is not None:
            room = torch.tensor([n - c for n, c in zip(x.shape[2:], params.crop, strict=True)])
            at = torch.rand(3, generator=generator, device=self.device).cpu() * (room + 1)
            box = [slice(a, a + c) for a, c in zip(at.int().tolist(), params.crop, strict=True)]
            x = x[:, :, box[0], box[1], box[2]]
        return x

    def compute_losses(self, step: int) -> dict[str, Tensor]:
        """Return every term, and as `loss` their weighted sum, the discriminator's own included."""
        params = self.params
        # Other noise in each part of the batch; the first draws what a whole batch would.
        seed = params.seed if self._part == 0 else seed_from("part", self._part, params.seed)
        generator = step_generator(step, seed=seed, device=self.device)
        x = self._batch(step, generator)
        mean, logvar = self.net.encode(x)
        mean, logvar = mean.float(), logvar.float()
        noise = torch.randn(mean.shape, generator=generator, device=self.device)
        reconstruction = self.net.decode(mean + (0.5 * logvar).exp() * noise).float()
        l1 = F.l1_loss(reconstruction, x)
        kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1).flatten(1).sum(1).mean()
        terms = {"l1": l1, "kl": kl}
        loss = l1 + params.kl_weight * kl
        if params.ssim_weight > 0:
            # The store holds 0 outside the brain and there alone; a crop may have missed it.
            inside = (x > 0).float()
            dssim = (1 - ssim_map(x, reconstruction)) * inside
            terms["dssim"] = dssim.sum() / inside.sum().clamp(min=1)
            loss = loss + params.ssim_weight * terms["dssim"]
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(reconstruction, x, generator)
            loss = loss + params.perceptual.weight * terms["perceptual"]
        if self.adversary is not None:
            loss = loss + self._adversarial(step, reconstruction, x, terms)
        return {"loss": loss, **terms}

    def _adversarial(
        self, step: int, reconstruction: Tensor, x: Tensor, terms: dict[str, Tensor]
    ) -> Tensor:
        """Return what the discriminator adds to the loss, and log its parts."""
        assert self.adversary is not None
        params = self.params.adversarial
        if step < params.warmup_steps:
            zero = self.adversary.zero_loss()
            terms |= {"adversarial": zero, "discriminator": zero}
            return zero
        terms["adversarial"] = self.adversary.generator_loss(reconstruction)
        terms["discriminator"] = self.adversary.discriminator_loss(reconstruction, x)
        return params.weight * terms["adversarial"] + terms["discriminator"]

    @torch.no_grad()
    def compute_validation(self) -> dict[str, float]:
        """Return the L1 of posterior-mean reconstructions on validation scans."""
        losses = []
        for row in self.val_rows:
            x = self.resident.take([row])
            mean, _ = self.averaged.encode(x)
            losses.append(float(F.l1_loss(self.averaged.decode(mean).float(), x)))
        return {"l1": sum(losses) / len(losses)} if losses else {}


def train_autoencoder(
    volumes: VolumeStore,
    scan_ids: dict[str, list[str]],
    params: TrainAeParams,
    out: Path,
    *,
    device: torch.device,
    start: FrozenAutoencoder | None = None,
) -> dict[str, Any]:
    """Train, freeze and write the autoencoder; return its metrics.

    `scan_ids` maps split to the scans of that split. `start` gives the weights to start from.

    Raises
    ------
    ContractError
        If there is no training scan, or the grid or `start` does not fit the architecture.
    """
    weights = params.perceptual.weights
    perceptual = digest_file(weights) if weights and weights.is_file() else None
    started_from = [perceptual]
    started_from += [start.digest] if start is not None else []
    # Paths say nothing elsewhere; digests of what lies there do.
    shown = params.model_dump(
        mode="json", exclude={"log_to": True, "start_from": True, "perceptual": {"weights"}}
    )
    plan = Plan(
        digest_of([shown, started_from, volumes.digest, scan_ids]),
        shown,
        {
            "volumes": volumes.digest,
            "split": digest_of(scan_ids),
            "perceptual weights": perceptual,
            "start": start.digest if start is not None else None,
        },
    )
    check_model_folder(out, kind="ae")
    finished = finished_metrics(out, kind="ae", fingerprint=plan.fingerprint)
    if finished is not None:
        return finished
    train_rows = [volumes.row_of[s] for s in scan_ids["train"] if s in volumes.row_of]
    val_ids = [s for s in scan_ids["val"] if s in volumes.row_of]
    val_rows = [volumes.row_of[val_ids[i]] for i in many_subjects_first(subjects_of(val_ids))]
    if not train_rows:
        raise ContractError(f"{volumes.path}: no scan of the training split; check the manifest")
    architecture: dict[str, Any] = {
        "channels": params.channels,
        "latent_channels": params.latent_channels,
        "num_res_blocks": params.num_res_blocks,
        "norm_groups": params.norm_groups,
        "patch": params.patch,
    }
    torch.manual_seed(params.seed)
    net = Autoencoder(**architecture, checkpointing=params.checkpointing)
    if start is not None:
        _take_weights(net, architecture, start)
    grid = volumes.attributes.grid
    _check_boxes(net, params, grid.shape)
    if weights is None and params.perceptual.weight:
        log.info("perceptual term: off, no train_ae.perceptual.weights was given")
    module = AutoencoderModule(net, params, volumes, train_rows, val_rows)
    run_training(module, out, plan=plan, device=device)
    metrics = final_metrics(module)
    config = {
        **plan.record(),
        "architecture": architecture,
        "grid": grid.document(),
        "contrast": volumes.attributes.contrast,
        "params": shown,
        "perceptual_sha256": perceptual,
        "started_from": start.digest if start is not None else None,
        "train_scans": len(train_rows),
        "volumes_digest": volumes.digest,
        "metrics": {k: v for k, v in metrics.items() if k != "seconds"},
    }
    if processes().rank == 0:
        write_artefact(
            out,
            kind="ae",
            tensors=module.averaged.state_dict(),
            config=config,
            metrics=metrics,
            card=_card(config),
        )
        discard_checkpoints(out)
    return metrics


def _take_weights(net: Autoencoder, architecture: dict[str, Any], start: FrozenAutoencoder) -> None:
    """Copy the weights of `start`, for as many latent channels as `net` has."""
    given, theirs = start.net.state_dict(), architecture_of(start.config)
    # Not by shapes of tensors: groups of normalisation show in none.
    defaults = {k: p.default for k, p in inspect.signature(Autoencoder).parameters.items()}
    free = {"latent_channels": None, "checkpointing": None}
    same = defaults | theirs | free == defaults | architecture | free
    if not same:
        sizes = {key: theirs.get(key) for key in theirs | architecture}
        raise ContractError(
            f"train_ae.start_from: {start.path} has {sizes}; give the same but for latent_channels"
        )
    if net.latent_channels < theirs["latent_channels"]:
        given = remove_latent_channels(given, net.latent_channels)
    net.load_state_dict(add_latent_channels(given, net.state_dict()))


def _check_boxes(net: Autoencoder, params: TrainAeParams, shape: tuple[int, ...]) -> None:
    try:
        net.latent_shape(shape)
    except ValueError as error:
        raise ContractError(f"train_ae.channels do not fit the volumes: {error}") from error
    if params.crop is None:
        return
    if any(c > n or c % net.factor for c, n in zip(params.crop, shape, strict=True)):
        raise ContractError(
            f"train_ae.crop {params.crop}: expected multiples of {net.factor} within {shape}"
        )


def final_metrics(module: StepModule) -> dict[str, Any]:
    """Return the last value of every logged figure, and the number of trained parameters.

    Where training kept the weights of its best validation, the validation figures are theirs.
    """
    last: dict[str, Any] = {}
    for row in module.rows:
        last |= row
    if module.best is not None:
        best = module.best_row()
        last |= {k: v for k, v in best.items() if k.startswith("val_")}
        last["best_step"] = best["step"]
    last["parameters"] = sum(p.numel() for p in module.net.parameters())
    return last


def _card(config: dict[str, Any]) -> str:
    figures = "\n".join(f"- {k}: {v}" for k, v in config["metrics"].items())
    params = config["params"]
    terms = ["L1"] + (["SSIM"] if params["ssim_weight"] else []) + ["KL"]
    terms += ["LPIPS"] if config["perceptual_sha256"] else []
    terms += ["patch-adversarial"] if params["adversarial"]["weight"] else []
    return f"""# Compression autoencoder

MONAI AutoencoderKL, trained with {" + ".join(terms)} on {config["train_scans"]} preprocessed T1w
volumes on a grid of {config["grid"]["shape"]}, {params["steps"]} steps at most. Frozen: latents
made with it belong to these weights alone. Parameters of the run: config.json, params.

Last figures (step, losses on training scans, val_l1 on validation scans):

{figures}

Licence: that of the data it was trained on; the code is Apache-2.0. Not a medical device.
"""
