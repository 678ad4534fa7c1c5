"""Rename tensors of monai-generative checkpoints to the names of MONAI ≥ 1.4.

monai-generative 0.1 had convolutions for the attention's projections (`q.conv`), 0.2 linear layers
(`to_q`) and one more, `proj_attn`, that its forward pass **never used**. MONAI's own reader applies
it. Trained weights decide: a layer that was never used still has its initial values.
"""

import math
import re
from typing import Literal

import torch
from torch import Tensor

Projection = Literal["auto", "apply", "ignore"]

RENAMES = (
    (re.compile(r"(blocks\.\d+)\.(to_[qkv])\."), r"\1.attn.\2."),
    (re.compile(r"(blocks\.\d+)\.proj_attn\."), r"\1.attn.out_proj."),
    (re.compile(r"(blocks\.\d+)\.([qkv])\.conv\."), r"\1.attn.to_\2."),
    (re.compile(r"(blocks\.\d+)\.proj_out\.conv\."), r"\1.attn.out_proj."),
    (re.compile(r"(decoder\.blocks\.\d+)\.conv\.conv\."), r"\1.postconv.conv."),
)
OLD_PROJECTION = re.compile(r"(.*blocks\.\d+)\.proj_attn\.weight$")
MAISI_STEM = "encoder.blocks.0.conv.conv.weight"
"""MAISI wraps convolutions once more than MONAI's AutoencoderKL does."""
MAISI_WRAPPED = re.compile(r"\.conv\.conv\.(weight|bias)$")
INITIAL_SLACK = 1.001
"""Tolerance for the rounding of a checkpoint in half precision."""


def is_old(tensors: dict[str, Tensor]) -> bool:
    """Return whether any key has a name of monai-generative."""
    if is_maisi(tensors):
        return False
    return any(pattern.search(key) for key in tensors for pattern, _ in RENAMES)


def is_maisi(tensors: dict[str, Tensor]) -> bool:
    """Return whether the network is MONAI's AutoencoderKlMaisi."""
    return MAISI_STEM in tensors


def unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an AutoencoderKlMaisi under the names of AutoencoderKL."""
    return {MAISI_WRAPPED.sub(r".conv.\1", key): tensor for key, tensor in tensors.items()}


def rename(tensors: dict[str, Tensor], projection: Projection) -> tuple[dict[str, Tensor], str]:
    """Return the tensors under MONAI's present names, and in words the treatment of `proj_attn`."""
    if is_maisi(tensors):
        return dict(tensors), ""
    blocks = [m[1] for key in tensors if (m := OLD_PROJECTION.match(key))]
    applied, words = _decide(tensors, blocks, projection)
    renamed: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if ".proj_attn." in key and not applied:
            continue
        name, value = key, tensor
        for pattern, new in RENAMES:
            name = pattern.sub(new, name)
        if ".attn." in name and name != key and tensor.ndim > 2:
            value = tensor.flatten(1)  # a convolution of one voxel is a linear layer
        renamed[name] = value
    return renamed, words


def _decide(
    tensors: dict[str, Tensor], blocks: list[str], projection: Projection
) -> tuple[bool, str]:
    if not blocks:
        return True, ""
    if projection != "auto":
        verb = {"apply": "applied", "ignore": "left out"}[projection]
        return projection == "apply", f"proj_attn {verb}, as asked for"
    untouched = all(_is_initial(tensors, f"{block}.proj_attn") for block in blocks)
    trained = not all(_is_initial(tensors, f"{block}.to_v") for block in blocks)
    if untouched and trained:
        return False, (
            "proj_attn left out: it still has initial values while its neighbours were trained, so"
            " monai-generative made this, which never used it (--projection apply overrides)"
        )
    return True, "proj_attn applied as the attention's output (--projection ignore leaves it out)"


def _is_initial(tensors: dict[str, Tensor], layer: str) -> bool:
    """Return whether all values of a linear layer are within PyTorch's initial 1 / sqrt(in)."""
    weight = tensors.get(f"{layer}.weight", torch.zeros(1, 1))
    bias = tensors.get(f"{layer}.bias", torch.zeros(1))
    bound = INITIAL_SLACK / math.sqrt(weight[0].numel())
    return float(weight.abs().max()) <= bound and float(bias.abs().max()) <= bound
