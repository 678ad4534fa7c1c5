"""An encoder and an estimator with modes of a few random latents."""

import torch

from pipeline.nets.denoiser import GradientEstimator, UnetConfig
from pipeline.nets.semantic import LatentEncoder

SHAPE = (2, 5, 6, 7)
SCANS = 9


def deviations() -> torch.Tensor:
    latents = torch.randn(SCANS, *SHAPE, generator=torch.Generator().manual_seed(0))
    return latents - latents.mean(0)


CONFIG = UnetConfig(
    in_channels=2, base_channels=8, multipliers=(1, 2), num_res_blocks=1, attention_levels=()
)


def encoder_and_estimator() -> tuple[LatentEncoder, GradientEstimator]:
    """With modes of the deviations, units that differ between voxels, and a mean that is not 0."""
    torch.manual_seed(0)
    encoder = LatentEncoder(
        in_channels=2, grid=SHAPE[1:], channels=(8, 16), dim=7, num_heads=2, modes=4
    )
    encoder.set_input_statistics(torch.randn(SHAPE), 0.5 + torch.rand(SHAPE))
    encoder.modes.fit(deviations(), torch.arange(SCANS))
    encoder.eval()
    estimator = GradientEstimator(CONFIG, semantic_dim=7, modes=4, grid=SHAPE[1:])
    estimator.modes.load_state_dict(encoder.modes.state_dict())
    estimator.spread.copy_(encoder.spread)
    estimator.centre.copy_(encoder.centre)
    return encoder, estimator
