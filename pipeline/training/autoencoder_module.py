"""A step of the autoencoder's training: its batch, and every term of its loss."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.imaging.augment import augment
from pipeline.metrics.ssim import ssim_map
from pipeline.models.pretrained import load_lpips
from pipeline.nets.autoencoder import Autoencoder
from pipeline.nets.lpips import Lpips, plane_slices
from pipeline.runtime.digests import seed_from
from pipeline.stores.volumes import VolumeStore
from pipeline.training.batches import batch_rows, step_generator
from pipeline.training.step_module import StepModule
from pipeline.training.training_volumes import ResidentVolumes
from schemas.autoencoder import AdversarialParams, TrainAeParams

CPU = torch.device("cpu")
MAX_VAL_SCANS = 8

Volumes = Float[Tensor, "B 1 X Y Z"]


@dataclass(frozen=True, slots=True)
class PerceptualLoss:
    """Mean LPIPS of randomly picked slices, over the three planes.

    No torch module: its network is fixed, so neither averaged nor checkpointed with the trained.
    """

    lpips: Lpips
    share: float
    """Share of a plane's slices that are picked."""

    def to(self, device: torch.device) -> None:
        """Bring the network to the device."""
        self.lpips.to(device)

    def __call__(
        self, reconstruction: Volumes, real: Volumes, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of a batch."""
        planes = []
        for axis in range(3):
            size = reconstruction.shape[axis + 2]
            order = torch.randperm(size, generator=generator, device=generator.device)
            picked = order[: max(1, round(self.share * size))].to(reconstruction.device)
            slices = (plane_slices(volumes, axis, picked) for volumes in (reconstruction, real))
            planes.append(self.lpips(*slices).mean())
        return torch.stack(planes).mean()


class Adversary(nn.Module):
    """MONAI's PatchDiscriminator and both sides of its least-squares loss.

    The autoencoder's term leaves the discriminator's weights out and the discriminator's own loss
    the autoencoder's, so that one backward pass of their sum trains both.
    """

    def __init__(self, params: AdversarialParams) -> None:
        from monai.losses.adversarial_loss import PatchAdversarialLoss
        from monai.networks.nets.patchgan_discriminator import PatchDiscriminator

        super().__init__()
        self.net = PatchDiscriminator(
            spatial_dims=3, channels=params.channels, in_channels=1, num_layers_d=params.layers
        )
        self.loss = PatchAdversarialLoss(criterion="least_squares")

    def generator_loss(self, reconstruction: Volumes) -> Tensor:
        """Return the autoencoder's term: how far its volumes are from being taken for real."""
        self.net.requires_grad_(False)
        logits = self.net(reconstruction)[-1]
        self.net.requires_grad_(True)
        term: Tensor = self.loss(logits.float(), target_is_real=True, for_discriminator=False)
        return term

    def discriminator_loss(self, reconstruction: Volumes, real: Volumes) -> Tensor:
        """Return the discriminator's own loss."""
        logits = ((self.net(reconstruction.detach())[-1], False), (self.net(real)[-1], True))
        sides = [self.loss(x.float(), target_is_real=t, for_discriminator=True) for x, t in logits]
        return torch.stack(sides).mean()

    def zero_loss(self) -> Tensor:
        """Return 0 with a gradient of 0 for every weight.

        For steps before the discriminator takes part: distributed training waits for the gradient
        of every weight, and Adam counts the step for all alike.
        """
        return torch.stack([0 * p.sum() for p in self.net.parameters()]).sum()


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
