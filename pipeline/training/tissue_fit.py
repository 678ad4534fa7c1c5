"""Fit what reads tissue fractions from latents: the network once, its modes for every study."""

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.bundled_ldae import load_start
from pipeline.models.places import BUNDLED_LDAE
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


@dataclass(frozen=True, slots=True)
class TissueSource:
    """Where an encoder's tissue net comes from: the package, or volumes that it is fitted on."""

    bundled: TissueNet | None = None
    volumes: VolumeStore | None = None
    digest: str | None = None
    """Of the bundled LDAE, or of the volumes."""

    def prepare(self, net: TissueNet, train: AnyLatents, *, steps: int, seed: int) -> None:
        """Set the weights of an encoder's network."""
        if self.bundled is not None:
            net.load_state_dict(self.bundled.state_dict())
        elif self.volumes is not None:
            fit_tissue_net(net, train, self.volumes, steps=steps, seed=seed)


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
    """Return the network of the bundled LDAE if its autoencoder made the latents."""
    if not BUNDLED_LDAE.is_dir():
        return None
    ldae = load_start("bundled")
    encoder = ldae.net.encoder
    if ldae.config["autoencoder_digest"] != store.attributes.digests["autoencoder"]:
        return None
    if not isinstance(encoder, DeviationEncoder) or encoder.tissue is None:
        return None
    return TissueSource(bundled=encoder.tissue.net, digest=ldae.digest)


def fit_tissue_net(
    net: TissueNet, train: AnyLatents, volumes: VolumeStore, *, steps: int, seed: int
) -> None:
    """Fit the network to the tissue fractions of the training scans' volumes, and freeze it."""
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
    size = min(BATCH_SIZE, len(some))
    for step in progress(range(steps), total=steps, label="tissue net"):
        rows = batch_rows(step, num_rows=len(some), batch_size=size, seed=seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            read = net(latents[rows])
        loss = nn.functional.mse_loss(read, truth[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
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
    tissue.mean_latent.copy_(mean_latent)
    tissue.unit.copy_(unit)
    maps = torch.cat([tissue.fractions(part) for part in torch.split(deviations, MAP_BATCH)])
    tissue.centre.copy_(maps.mean(dim=0))
    folds = subject_folds(scan_ids)
    tissue.modes.fit(maps - tissue.centre, folds, loudness=LOUDNESS["tissue"])
