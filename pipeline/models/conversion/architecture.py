"""Architecture of an AutoencoderKL checkpoint, from its tensor shapes or a config beside it."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from schemas.errors import ContractError

ARGUMENTS = {
    "channels": "channels",
    "num_channels": "channels",
    "latent_channels": "latent_channels",
    "num_res_blocks": "num_res_blocks",
    "norm_num_groups": "norm_groups",
    "norm_eps": "norm_eps",
    "attention_levels": "attention_levels",
    "with_encoder_nonlocal_attn": "encoder_attention",
    "with_decoder_nonlocal_attn": "decoder_attention",
    "include_fc": "attention_projection",
    "use_combined_linear": "combined_qkv",
    "use_convtranspose": "transposed_upsampling",
}
"""MONAI's argument → argument of `nets.autoencoder.Autoencoder`."""
GROUPS = (32, 16, 8, 4, 2, 1)
BLOCK = re.compile(r"^(encoder|decoder)\.blocks\.(\d+)\.(.+)$")


def architecture_of(
    tensors: dict[str, Tensor], definition: dict[str, Any], *, norm_groups: int | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of `Autoencoder`, and in words those that had to be assumed.

    A definition goes before shapes; strict loading finds where they disagree.

    Raises
    ------
    ContractError
        If the network is not three-dimensional with one channel, or its blocks have no levels.
    """
    arguments = _inferred(tensors) | _defined(definition)
    assumed = []
    if norm_groups is not None:
        arguments["norm_groups"] = norm_groups
    if "norm_groups" not in arguments:
        channels = arguments["channels"]
        arguments["norm_groups"] = next(g for g in GROUPS if not any(c % g for c in channels))
        assumed.append(
            f"norm groups {arguments['norm_groups']}, which no shape tells"
            " (--norm-groups, --config)"
        )
    return arguments, assumed


def _defined(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a definition of the network gives."""
    arguments: dict[str, Any] = {}
    for name, value in definition.items():
        argument = ARGUMENTS.get(name, name if name in (*ARGUMENTS.values(), "patch") else None)
        if argument is None or (isinstance(value, str) and value.startswith(("$", "@"))):
            continue
        arguments[argument] = tuple(value) if isinstance(value, list) else value
    in_channels = definition.get("in_channels", 1)
    if "patch" not in arguments and in_channels != 1:
        side = round(in_channels ** (1 / 3))
        if side**3 != in_channels:
            raise ContractError(f"in_channels {in_channels}: expected 1, one T1w volume")
        arguments["patch"] = side
    return arguments


def _inferred(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the arguments that names and shapes of tensors give."""
    encoder, decoder = (_blocks(tensors, side) for side in ("encoder", "decoder"))
    first = tensors.get("encoder.blocks.0.conv.weight")
    if first is not None and first.ndim != 5:
        raise ContractError(f"a network of {first.ndim - 2} dimensions, expected 3")
    levels, nonlocal_attention = _levels([kind for kind, _ in encoder])
    if not levels or any(not level.count("res") for level in levels):
        raise ContractError(
            "its encoder is no AutoencoderKL's: expected residual blocks in levels; give --config"
        )
    widths = _widths(encoder, [len(level) for level in levels])
    depth = [level.count("res") for level in levels]
    attention = ["attn" in level for level in levels]
    arguments: dict[str, Any] = {
        "channels": tuple(widths),
        "latent_channels": _latent_channels(tensors),
        "num_res_blocks": tuple(depth),
        "attention_levels": tuple(attention),
        "encoder_attention": nonlocal_attention,
        "decoder_attention": _decoder_attention([kind for kind, _ in decoder], depth, attention),
        "attention_projection": any(".attn.out_proj." in key for key in tensors)
        or not any(".attn." in key for key in tensors),
        "combined_qkv": any(".attn.qkv." in key for key in tensors),
        "transposed_upsampling": any(".deconv." in key for key in tensors),
    }
    if first is not None and first.shape[1] != 1:
        arguments |= _defined({"in_channels": int(first.shape[1])})
    return arguments


def _blocks(tensors: dict[str, Tensor], side: str) -> list[tuple[str, dict[str, Tensor]]]:
    parts: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = BLOCK.match(key)
        if match and match[1] == side:
            parts.setdefault(int(match[2]), {})[match[3]] = tensor
    missing = [i for i in range(max(parts, default=-1) + 1) if i not in parts]
    if missing or not parts:
        named = ", ".join(f"{side}.blocks.{i}" for i in missing) or f"{side}.blocks"
        raise ContractError(f"weights are missing: nothing of {named}")
    return [(_kind(parts[i]), parts[i]) for i in range(len(parts))]


def _kind(part: Iterable[str]) -> str:
    names = {key.split(".")[0] for key in part}
    if names & {"conv1", "conv2", "norm1", "norm2", "nin_shortcut"}:
        return "res"
    if "attn" in names:
        return "attn"
    if names & {"postconv", "deconv"} or any(key.startswith("conv.conv.") for key in part):
        return "scale"
    return "conv" if "conv" in names else "norm"


def _levels(kinds: list[str]) -> tuple[list[list[str]], bool]:
    """Return the blocks of each encoder level, and whether a non-local block ends them."""
    levels: list[list[str]] = [[]]
    for kind in kinds:
        if kind == "scale":
            levels.append([])
        elif kind in ("res", "attn"):
            levels[-1].append(kind)
    last = levels[-1]
    ends = last[-3:] == ["res", "attn", "res"] and len(last) > 3
    if ends:
        levels[-1] = last[:-3]
    return levels, ends


def _widths(blocks: list[tuple[str, dict[str, Tensor]]], lengths: list[int]) -> list[int]:
    parts = [part for kind, part in blocks if kind in ("res", "attn")]
    widths, start = [], 0
    for length in lengths:
        votes: Counter[int] = Counter()
        for part in parts[start : start + length]:
            names = ("norm2.weight", "norm2.bias", "conv1.conv.bias", "conv2.conv.bias")
            votes.update(len(part[name]) for name in names if name in part)
        start += length
        if not votes:
            raise ContractError("the width of a level cannot be read off its shapes; give --config")
        widths.append(votes.most_common(1)[0][0])
    return widths


def _latent_channels(tensors: dict[str, Tensor]) -> int:
    names = ("quant_conv_mu", "quant_conv_log_sigma", "post_quant_conv")
    keys = [f"{name}.conv.{part}" for name in names for part in ("weight", "bias")]
    votes = Counter(len(tensors[key]) for key in keys if key in tensors)
    if not votes:
        raise ContractError("weights are missing: nothing of quant_conv_mu and its neighbours")
    return votes.most_common(1)[0][0]


def _decoder_attention(kinds: list[str], depth: list[int], attention: list[bool]) -> bool:
    """Return whether the decoder begins with a non-local block (res, attn, res)."""
    first = kinds[1 : kinds.index("scale")] if "scale" in kinds else kinds[1:]
    expected = depth[-1] * (2 if attention[-1] else 1)
    return sum(kind in ("res", "attn") for kind in first) == expected + 3
