"""Fit what reads tissue fractions from latents: the network once, its modes for every study."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.bundled_ldae import is_bundled_for, load_start
from pipeline.nets.semantic import LOUDNESS, DeviationEncoder
from pipeline.nets.tissue import TissueModes, TissueNet, tissue_fractions
from pipeline.runtime.devices import native_bf16
from pipeline.runtime.progress import progress
from pipeline.stores.provenance import check_same_scans
from pipeline.stores.volumes import VolumeStore
from pipeline.training.batches import batch_rows
from pipeline.training.standardisation import AnyLatents, subject_folds
from pipeline.training.voxel_latents import TrainingStore
from schemas.diffusion import SemanticEncoderParams
from schemas.errors import ParamsError

log = logging.getLogger(__name__)

BATCH_SIZE = 8
LR = 3e-3
MAX_FIT_SCANS = 1024
"""Training scans, evenly spread, that the network is fitted on."""
MAP_BATCH = 16
CHECKPOINT_EVERY = 100
"""Steps of the network's fit after which an interrupted one goes on."""


@dataclass(frozen=True, slots=True)
class TissueSource:
    """Where an encoder's tissue net comes from: the package, or volumes that it is fitted on."""

    bundled: TissueNet | None = None
    volumes: VolumeStore | None = None
    digest: str | None = None
    """Of the bundled LDAE, or of the volumes."""

    def prepare(
        self,
        net: TissueNet,
        train: AnyLatents,
        *,
        steps: int,
        seed: int,
        checkpoint: "FitCheckpoint | None" = None,
    ) -> None:
        """Set the weights of an encoder's network."""
        if self.bundled is not None:
            net.load_state_dict(self.bundled.state_dict())
        elif self.volumes is not None:
            fit_tissue_net(net, train, self.volumes, steps=steps, seed=seed, checkpoint=checkpoint)


@dataclass(frozen=True, slots=True)
class FitCheckpoint:
    """Where an interrupted fit of the tissue net goes on, and a finished one is read."""

    path: Path
    fingerprint: str
    """Of the training's plan: the state of another is of no use."""

    def read(self) -> dict[str, Any]:
        """Return the state of this plan, or {}."""
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            return dict(state) if state["fingerprint"] == self.fingerprint else {}
        except Exception:  # noqa: BLE001 (whatever a damaged file raises: the fit starts anew)
            return {}

    def write(self, **state: Any) -> None:
        """Replace the state."""
        from pipeline.training.checkpoints import WholeCheckpoints

        WholeCheckpoints().save_checkpoint(state | {"fingerprint": self.fingerprint}, self.path)


def find_tissue_source(
    store: TrainingStore, params: SemanticEncoderParams, volumes: VolumeStore | None
) -> TissueSource:
    """Return the bundled network if it fits the latents and is asked for, else the volumes.

    Neither, for encoders that read no tissue.

    Raises
    ------
    ParamsError
        If it must be fitted, and there are no volumes.
    """
    if params.reads_volumes or not params.tissue_modes:
        return TissueSource()
    if params.tissue_net == "bundled" and (found := _bundled(store)) is not None:
        return found
    if volumes is None:
        raise ParamsError(
            "train_ldae.encoder.tissue_modes: what reads tissue from latents comes with the package"
            " for the bundled autoencoder alone; give --volumes, for it to be fitted, or set"
            " train_ldae.encoder.tissue_modes=0"
        )
    check_same_scans(store, volumes)
    return TissueSource(volumes=volumes, digest=volumes.digest)


def _bundled(store: TrainingStore) -> TissueSource | None:
    """Return the network of the bundled LDAE if it is one of these latents."""
    if not is_bundled_for(store.attributes):
        return None
    ldae = load_start("bundled")
    encoder = ldae.net.encoder
    if not isinstance(encoder, DeviationEncoder) or encoder.tissue is None:
        return None
    return TissueSource(bundled=encoder.tissue.net, digest=ldae.digest)


def fit_tissue_net(
    net: TissueNet,
    train: AnyLatents,
    volumes: VolumeStore,
    *,
    steps: int,
    seed: int,
    checkpoint: FitCheckpoint | None = None,
) -> None:
    """Fit the network to the tissue fractions of the training scans' volumes, and freeze it.

    With `checkpoint` an interrupted fit goes on where it was, and ends with the same weights.
    """
    state = {} if checkpoint is None else checkpoint.read()
    if state.get("step") == steps:
        net.load_state_dict(state["net"])
        net.requires_grad_(False)
        return
    some = torch.linspace(0, len(train) - 1, min(len(train), MAX_FIT_SCANS)).long()
    latents = train.take_mean(some).cpu().float()
    net.mean.copy_(latents.mean(dim=(0, 2, 3, 4)).reshape(net.mean.shape))
    net.unit.copy_(latents.std(dim=(0, 2, 3, 4)).reshape(net.unit.shape).clamp(min=1e-6))
    side = volumes.attributes.grid.shape[0] // latents.shape[2]
    truth = torch.cat(
        [
            tissue_fractions(volumes.load_unit_interval([train.scan_ids[i]]), side)
            for i in some.tolist()
        ]
    )
    bf16 = native_bf16(torch.device("cpu"))
    net.requires_grad_(True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps)
    first, size = state.get("step", 0), min(BATCH_SIZE, len(some))
    trained: dict[str, Any] = {"net": net, "optimizer": optimizer, "schedule": schedule}
    for name, part in trained.items() if state else ():
        part.load_state_dict(state[name])
    for step in progress(range(first, steps), total=steps - first, label="tissue net"):
        rows = batch_rows(step, num_rows=len(some), batch_size=size, seed=seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            read = net(latents[rows])
        loss = nn.functional.mse_loss(read, truth[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if checkpoint is not None and ((step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps):
            checkpoint.write(
                step=step + 1, **{name: part.state_dict() for name, part in trained.items()}
            )
    net.requires_grad_(False)
    log.info(
        "tissue net: %d scans, root mean square error %.3f", len(some), float(loss.detach()) ** 0.5
    )


@torch.no_grad()
def fit_tissue_modes(
    tissue: TissueModes,
    deviations: Float[Tensor, "N C X Y Z"],
    scan_ids: list[str],
    *,
    mean_latent: Tensor,
    unit: Tensor,
) -> None:
    """Set mean and modes of the tissue fractions of training scans, as the network reads them.

    `deviations` are their latents' deviations from `mean_latent`, in units of `unit`.
    """
    tissue.count_from(mean_latent, unit)
    maps = torch.cat([tissue.fractions(part) for part in torch.split(deviations, MAP_BATCH)])
    tissue.centre.copy_(maps.mean(dim=0))
    folds = subject_folds(scan_ids)
    tissue.modes.fit(maps - tissue.centre, folds, loudness=LOUDNESS["tissue"])
