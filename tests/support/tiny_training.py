"""Parameters of a few training steps, with any of them changed."""

from schemas.diffusion import TrainLdaeParams, TrainLdmParams

NETS = {
    "denoiser": {"base_channels": 8, "attention_levels": [1], "multipliers": [1, 2]},
    "encoder": {"channels": [8, 16], "dim": 12, "num_heads": 2, "modes": 4, "tissue_modes": 0},
}


def ldm(**changes) -> TrainLdmParams:
    shared = {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "precision": "fp32"}
    return TrainLdmParams(**(shared | changes), denoiser=NETS["denoiser"])


def ldae(**changes) -> TrainLdaeParams:
    shared = {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "precision": "fp32"}
    return TrainLdaeParams(**({"encoder": NETS["encoder"]} | shared | changes))
