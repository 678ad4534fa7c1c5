"""Autoencoder weights for more or fewer latent channels than they were trained with."""

import torch
from torch import Tensor

from pipeline.nets.autoencoder import INITIAL_LOGVAR

State = dict[str, Tensor]

MU, LOG_SIGMA, POST = (
    f"net.{name}.conv" for name in ("quant_conv_mu", "quant_conv_log_sigma", "post_quant_conv")
)
DECODER_IN = "net.decoder.blocks.0.conv"


def add_latent_channels(given: State, own: State) -> State:
    """Return `own` with the given weights copied in.

    Weights from the new channels into the old ones are zero, so that the old ones stay as they are.
    """
    wide = {name: tensor.clone() for name, tensor in own.items()}
    for name, tensor in wide.items():
        old = given[name]
        tensor[: len(old)] = 0
        tensor[tuple(slice(n) for n in old.shape)] = old
    return wide


def remove_latent_channels(given: State, channels: int) -> State:
    """Return weights that keep the latent channels which the decoder weighs most.

    The 1×1×1 convolutions around the latent go into the 3×3×3 ones beyond them: posterior means
    of the channels kept stay what they were, and so does what is decoded of them, but for the
    border of the grid. The log-variance, on which means and reconstructions do not depend, starts
    anew, as that of an untrained autoencoder.
    """
    encoder_out = max(
        (n.removesuffix(".weight") for n in given if n.startswith("net.encoder.blocks.")
         and n.endswith(".conv.weight")),
        key=lambda n: int(n.split(".")[3]),
    )  # fmt: skip
    mu, post = (given[f"{name}.weight"][..., 0, 0, 0] for name in (MU, POST))
    kept = post.norm(dim=0).topk(channels).indices.sort().values
    mu, post = mu[kept], post[:, kept]
    weights = {
        encoder_out: torch.einsum("ce,ehxyz->chxyz", mu, given[f"{encoder_out}.weight"]),
        DECODER_IN: torch.einsum("hdxyz,dc->hcxyz", given[f"{DECODER_IN}.weight"], post),
        MU: torch.eye(channels)[..., None, None, None],
        LOG_SIGMA: torch.zeros(channels, channels, 1, 1, 1),
        POST: torch.eye(channels)[..., None, None, None],
    }
    after = torch.einsum("hdxyz,d->h", given[f"{DECODER_IN}.weight"], given[f"{POST}.bias"])
    biases = {
        encoder_out: mu @ given[f"{encoder_out}.bias"] + given[f"{MU}.bias"][kept],
        DECODER_IN: given[f"{DECODER_IN}.bias"] + after,
        MU: torch.zeros(channels),
        LOG_SIGMA: torch.full((channels,), INITIAL_LOGVAR),
        POST: torch.zeros(channels),
    }
    changed = {f"{name}.weight": tensor for name, tensor in weights.items()}
    changed |= {f"{name}.bias": tensor for name, tensor in biases.items()}
    return given | changed
