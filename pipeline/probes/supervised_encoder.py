"""The supervised rival: the semantic encoder's own architecture, trained on the label itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.nets.semantic import DeviationEncoder, build_encoder
from pipeline.probes.estimators import LabelledFeatures, Probe
from pipeline.probes.linear import balanced, subject_weight
from pipeline.runtime.digests import seed_from
from schemas.evaluation import ProbeParams
from schemas.metrics import Prediction

Floats = NDArray[np.float64]

BATCH_SIZE = 8
CODE_BATCH = 64


@dataclass(frozen=True, slots=True)
class SupervisedHead:
    """Trains an encoder of this architecture and a last layer together."""

    config: dict[str, Any]
    device: torch.device

    def __call__(self, data: LabelledFeatures, params: ProbeParams) -> Probe:
        """Fit on flattened z_0 (scan, latent)."""
        weight = subject_weight(data.subjects)
        if data.kind == "classification":
            weight = balanced(weight, data.truth)
        return _train(data, weight, self.config, params, self.device)


@dataclass(frozen=True, slots=True)
class _SupervisedProbe:
    kind: Prediction
    encoder: DeviationEncoder
    layer: nn.Linear
    unit: tuple[float, float]

    @torch.inference_mode()
    def score(self, features: NDArray[np.floating]) -> Floats:
        device = self.layer.weight.device
        codes = torch.from_numpy(_codes(self.encoder, np.asarray(features, np.float32)))
        value = self.layer(codes.to(device))[:, 0]
        if self.kind == "classification":
            return np.asarray(value.sigmoid().double().cpu().numpy())
        shift, scale = self.unit
        return np.asarray(value.double().cpu().numpy() * scale + shift)

    def numbers(self) -> list[Floats]:
        weights = [*self.encoder.parameters(), *self.layer.parameters()]
        return [weight.detach().double().cpu().numpy() for weight in weights]


def _train(
    data: LabelledFeatures,
    weight: Floats,
    config: dict[str, Any],
    params: ProbeParams,
    device: torch.device,
) -> _SupervisedProbe:
    z_0, truth, kind = np.asarray(data.features, np.float32), data.truth, data.kind
    encoder = _encoder(config, z_0, seed=params.seed).to(device)
    layer = nn.Linear(encoder.dim, 1).to(device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    unit = (0.0, 1.0) if kind == "classification" else (float(truth.mean()), float(truth.std()))
    wanted = torch.from_numpy((truth - unit[0]) / unit[1]).float()
    weights = torch.from_numpy(weight).float()
    trained = [*encoder.parameters(), *layer.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=params.supervised_lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, params.supervised_lr, total_steps=max(2, params.supervised_steps)
    )
    generator = torch.Generator().manual_seed(seed_from("supervised", params.seed))
    shape = (-1, config["in_channels"], *config["grid"])
    volumes = torch.from_numpy(z_0).reshape(shape)
    encoder.train()
    for _ in range(params.supervised_steps):
        size = min(BATCH_SIZE, len(volumes))
        rows = torch.randperm(len(volumes), generator=generator)[:size]
        value = layer(encoder(volumes[rows].to(device)))[:, 0]
        optimiser.zero_grad()
        loss = _loss(value, wanted[rows].to(device), weights[rows].to(device), kind)
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    encoder.eval()
    encoder.estimate_output_statistics(part.to(device) for part in _parts(volumes))
    return _SupervisedProbe(kind, encoder, layer, unit)


def _loss(value: Tensor, wanted: Tensor, weights: Tensor, kind: Prediction) -> Float[Tensor, ""]:
    if kind == "regression":
        return (weights * (value - wanted).square()).mean()
    return nn.functional.binary_cross_entropy_with_logits(value, wanted, weight=weights)


def _encoder(config: dict[str, Any], z_0: NDArray[np.float32], *, seed: int) -> DeviationEncoder:
    """Return an encoder with random weights, its input standardised over these latents.

    Without principal modes: those are fitted, and PCA of latents stands beside it anyway.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from("encoder", seed) % 2**31)
        known = {name: _tuple(value) for name, value in config.items()}
        encoder = build_encoder(**known | {"modes": 0, "tissue_modes": 0})
    assert isinstance(encoder, DeviationEncoder)
    volumes = torch.from_numpy(z_0).reshape(-1, config["in_channels"], *config["grid"])
    centre = volumes.mean(dim=0)
    channels = (0, 2, 3, 4)
    spread = (volumes - centre).square().mean(dim=channels, keepdim=True).sqrt().clamp(min=1e-6)
    encoder.set_input_statistics(centre, spread[0])
    return encoder


@torch.inference_mode()
def _codes(encoder: DeviationEncoder, z_0: NDArray[np.float32]) -> NDArray[np.float32]:
    device = encoder.centre.device
    volumes = torch.from_numpy(z_0).reshape(-1, *encoder.centre.shape)
    codes = torch.cat([encoder(part.to(device)).cpu() for part in _parts(volumes)])
    return codes.numpy()


def _parts(volumes: Tensor) -> tuple[Tensor, ...]:
    """Return batches of like size: one of a single scan has no variance to be standardised by."""
    return volumes.tensor_split(-(-len(volumes) // CODE_BATCH))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
