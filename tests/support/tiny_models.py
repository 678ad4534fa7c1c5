"""Parameters of networks that are trained in seconds."""

import torch

from schemas.autoencoder import TrainAeParams
from schemas.diffusion import TrainLdaeParams, TrainLdmParams

CPU = torch.device("cpu")
TINY_AE = TrainAeParams(
    steps=12, channels=(8, 16), checkpoint_every=6, precision="fp32", ema_decay=0.5
)
SHARED = {"steps": 12, "batch_size": 4, "checkpoint_every": 4, "precision": "fp32"}
LDM = TrainLdmParams(
    **SHARED, denoiser={"base_channels": 8, "attention_levels": [1], "multipliers": [1, 2]}
)
DIM = 12
"""Of y_sem."""
LDAE = TrainLdaeParams(
    **SHARED, encoder={"channels": [8, 16], "dim": DIM, "num_heads": 2, "tissue_modes": 0}
)
