"""Train the compression autoencoder on volumes."""

import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.artefact import finished_metrics, write_artefact
from pipeline.compute import digest_of
from pipeline.nets.autoencoder import Autoencoder
from pipeline.stores.volumes import VolumeStore
from pipeline.training.batches import batch_rows, step_generator
from pipeline.training.fit import fit
from pipeline.training.module import StepModule
from schemas.autoencoder import TrainAeParams
from schemas.errors import ContractError

log = logging.getLogger(__name__)

MAX_VAL_SCANS = 8


class AutoencoderModule(StepModule):
    """L1 reconstruction and KL divergence."""

    net: Autoencoder
    params: TrainAeParams

    def __init__(
        self,
        net: Autoencoder,
        params: TrainAeParams,
        volumes: VolumeStore,
        train_rows: list[int],
        val_rows: list[int],
    ) -> None:
        super().__init__(net, params)
        self.volumes = volumes
        self.train_rows = train_rows
        self.val_rows = val_rows[:MAX_VAL_SCANS]

    def _read(self, rows: list[int]) -> Float[Tensor, "B 1 X Y Z"]:
        volumes = [torch.from_numpy(self.volumes.read("volume", row)) for row in rows]
        return torch.stack(volumes)[:, None].to(self.device).float() / 255

    def compute_losses(self, step: int) -> dict[str, Tensor]:
        """Return L1, KL and their weighted sum."""
        params = self.params
        picked = batch_rows(
            step, num_rows=len(self.train_rows), batch_size=params.batch_size, seed=params.seed
        )
        x = self._read([self.train_rows[i] for i in picked])
        generator = step_generator(step, seed=params.seed, device=self.device)
        if params.flip:
            flips = torch.rand(len(x), generator=generator, device=self.device) < 0.5
            x = torch.where(flips[:, None, None, None, None], x.flip(2), x)
        mean, logvar = self.net.encode(x)
        mean, logvar = mean.float(), logvar.float()
        noise = torch.randn(mean.shape, generator=generator, device=self.device)
        reconstruction = self.net.decode(mean + (0.5 * logvar).exp() * noise).float()
        l1 = F.l1_loss(reconstruction, x)
        kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1).flatten(1).sum(1).mean()
        return {"loss": l1 + params.kl_weight * kl, "l1": l1, "kl": kl}

    @torch.no_grad()
    def compute_validation(self) -> dict[str, float]:
        """Return the L1 of posterior-mean reconstructions on validation scans."""
        losses = []
        for row in self.val_rows:
            x = self._read([row])
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
) -> dict[str, Any]:
    """Train, freeze and write the autoencoder; return its metrics.

    `scan_ids` maps split to the scans of that split.

    Raises
    ------
    ContractError
        If there is no training scan, or the grid does not fit the architecture.
    """
    fingerprint = digest_of([params.model_dump(), volumes.digest, scan_ids])
    finished = finished_metrics(out, kind="ae", fingerprint=fingerprint)
    if finished is not None:
        return finished
    train_rows = [volumes.row_of[s] for s in scan_ids["train"] if s in volumes.row_of]
    val_rows = [volumes.row_of[s] for s in scan_ids["val"] if s in volumes.row_of]
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
    net = Autoencoder(**architecture)
    grid = volumes.attributes.grid
    try:
        net.latent_shape(tuple(grid["shape"]))
    except ValueError as error:
        raise ContractError(f"train_ae.channels do not fit the volumes: {error}") from error
    module = AutoencoderModule(net, params, volumes, train_rows, val_rows)
    fit(module, out, fingerprint=fingerprint, device=device)
    metrics = final_metrics(module)
    config = {
        "fingerprint": fingerprint,
        "architecture": architecture,
        "grid": grid,
        "params": params.model_dump(mode="json"),
        "train_scans": len(train_rows),
        "volumes_digest": volumes.digest,
        "metrics": {k: v for k, v in metrics.items() if k != "seconds"},
    }
    write_artefact(
        out,
        kind="ae",
        tensors=module.averaged.state_dict(),
        config=config,
        metrics=metrics,
        card=_card(config),
    )
    return metrics


def final_metrics(module: StepModule) -> dict[str, Any]:
    """Return the last value of every logged figure, and the number of trained parameters."""
    last: dict[str, Any] = {}
    for row in module.rows:
        last |= row
    last["parameters"] = sum(p.numel() for p in module.net.parameters())
    return last


def _card(config: dict[str, Any]) -> str:
    figures = "\n".join(f"- {k}: {v}" for k, v in config["metrics"].items())
    return f"""# Compression autoencoder

MONAI AutoencoderKL, trained with L1 + KL on {config["train_scans"]} preprocessed T1w volumes on a
grid of {config["grid"]["shape"]}. Frozen: latents made with it belong to these weights alone.

Last figures (step, losses on training scans, val_l1 on validation scans):

{figures}

Licence: that of the data it was trained on; the code is Apache-2.0. Not a medical device.
"""
