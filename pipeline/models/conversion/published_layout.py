"""Layout of the published LDAE's tensors: architecture by shapes, and their names here.

A decoder holds denoiser and gradient branch. The meaning of `.0`, `.1`, `.2` in its names depends
on the level: attention if it has some, then up- or downsampling.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from pipeline.nets.denoiser import UnetConfig
from schemas.errors import ContractError

Names = dict[str, str]
"""Published name → name here."""
Shapes = Mapping[str, tuple[int, ...]]

RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time",
    "emb_z_layers.1": "semantic",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "skip",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "out"}
ENCODER = {
    "positional_encoding.pe": "position",
    "soft_attention.linear.": "score.",
    "query_projection.": "query.",
    "key_projection.": "key.",
    "value_projection.": "value.",
    "cross_attention.": "attention.",
    "layer_norm_after_attention.": "norm.",
}
"""Prefixes of the encoder's parts other than the ConvNeXt: published → here."""
BACKBONE = "backbone.backbone."
SECOND_NAME = "slice_distributed.module."
"""The ConvNeXt is listed twice; this replaces `backbone.` in its second names."""
BRANCH = "shift_"
STEM = "input_blocks.0.0.weight"
UPSAMPLING = re.compile(r"output_blocks\.(\d+)\.[12]\.in_layers\.")
DROPOUT = 0.1
"""As published; no tensor shape gives it."""


def has_branch(tensors: Mapping[str, Any]) -> bool:
    """Return whether a decoder holds any tensor of a gradient branch."""
    return any(key.startswith(BRANCH) for key in tensors)


def unet_of(shapes: Shapes, *, heads: int) -> UnetConfig:
    """Return the denoiser's architecture from the shapes of its tensors.

    Raises
    ------
    ContractError
        If they do not form such a U-Net.
    """
    if STEM not in shapes:
        raise ContractError(f"weights are missing: {STEM}")
    stem = shapes[STEM]
    if len(stem) != 5:
        raise ContractError(f"{STEM}: shape {stem}, expected a convolution over three axes")
    base = stem[0]
    outputs = _count(shapes, "output_blocks")
    levels = 1 + len({m[1] for key in shapes if (m := UPSAMPLING.match(key))})
    if not outputs or outputs % levels or _count(shapes, "input_blocks") != outputs:
        raise ContractError(
            f"input_blocks and output_blocks: {_count(shapes, 'input_blocks')} and {outputs} of"
            f" {levels} levels, expected as many of both and the same for each level"
        )
    blocks_a_level = outputs // levels
    firsts = [1 + level * blocks_a_level for level in range(levels)]
    widths = [_width(shapes, f"input_blocks.{n}.0.") for n in firsts]
    if not all(widths) or any(width % base for width in widths) or base % 32:
        raise ContractError(
            f"input_blocks: widths {base} and {widths}, expected multiples of the first, and that"
            " of 32"
        )
    if any(width % heads for width in widths):
        raise ContractError(f"widths {widths} are no multiples of {heads} attention heads")
    return UnetConfig(
        in_channels=stem[1],
        base_channels=base,
        multipliers=tuple(width // base for width in widths),
        num_res_blocks=blocks_a_level - 1,
        attention_levels=tuple(
            level
            for level, n in enumerate(firsts)
            if any(key.startswith(f"input_blocks.{n}.1.") for key in shapes)
        ),
        dropout=DROPOUT,
        pooling="anisotropic",
        attention_heads=heads,
    )


def _width(shapes: Shapes, block: str) -> int:
    """Return the output channels of a residual block; 0 if no tensor gives them."""
    names = ("out_layers.3.weight", "out_layers.3.bias", "out_layers.0.weight", "in_layers.2.bias")
    votes = Counter(shapes[block + name][0] for name in names if block + name in shapes)
    return votes.most_common(1)[0][0] if votes else 0


def denoiser_names(config: UnetConfig) -> Names:
    """Return the names of the denoiser's modules: published → in `LatentDiffusion`."""
    names = {"time_embed.0": "denoiser.time.0", "time_embed.2": "denoiser.time.2"}
    names["input_blocks.0.0"] = "denoiser.encoder.stem"
    place = 1
    last = len(config.multipliers) - 1
    for level in range(len(config.multipliers)):
        for block in range(config.num_res_blocks):
            names |= _stage(
                f"input_blocks.{place}",
                f"denoiser.encoder.stages.{level}.{block}",
                attention=level in config.attention_levels,
            )
            place += 1
        if level < last:
            names |= _res_block(f"input_blocks.{place}.0", f"denoiser.encoder.downs.{level}")
            place += 1
    return names | _half("", "denoiser.decoder", config)


def branch_names(config: UnetConfig) -> Names:
    """Return the names of the gradient branch's modules: published → in `Ldae`."""
    return {"label_emb": "estimator.embed"} | _half(BRANCH, "estimator.decoder", config)


def _half(prefix: str, ours: str, config: UnetConfig) -> Names:
    """Return the names of a middle block, an expanding path and the output layers."""
    names = _res_block(f"{prefix}middle_block.0", f"{ours}.middle_in.block")
    names |= _attention(f"{prefix}middle_block.1", f"{ours}.middle_in.attention")
    names |= _res_block(f"{prefix}middle_block.2", f"{ours}.middle_out.block")
    place = 0
    for step, level in enumerate(reversed(range(len(config.multipliers)))):
        attention = level in config.attention_levels
        for block in range(config.num_res_blocks + 1):
            theirs = f"{prefix}output_blocks.{place}"
            names |= _stage(theirs, f"{ours}.stages.{step}.{block}", attention=attention)
            place += 1
        if level > 0:
            names |= _res_block(f"{theirs}.{2 if attention else 1}", f"{ours}.ups.{step}")
    return names | {f"{prefix}out.0": f"{ours}.norm", f"{prefix}out.2": f"{ours}.out"}


def _stage(theirs: str, ours: str, *, attention: bool) -> Names:
    names = _res_block(f"{theirs}.0", f"{ours}.block")
    return names | (_attention(f"{theirs}.1", f"{ours}.attention") if attention else {})


def _res_block(theirs: str, ours: str) -> Names:
    return {f"{theirs}.{a}": f"{ours}.{b}" for a, b in RES_BLOCK.items()}


def _attention(theirs: str, ours: str) -> Names:
    return {f"{theirs}.{a}": f"{ours}.{b}" for a, b in ATTENTION.items()}


def rename_parts(tensors: Mapping[str, Tensor], modules: Names) -> dict[str, Tensor]:
    """Return tensors under the names here; those of modules not in `modules` keep theirs.

    A convolution of one position (attention's projections) becomes a linear layer.
    """
    renamed = {}
    for key, tensor in tensors.items():
        module, _, parameter = key.rpartition(".")
        name = f"{modules[module]}.{parameter}" if module in modules else key
        linear = tensor.ndim == 3 and tensor.shape[-1] == 1 and ".attention." in name
        renamed[name] = tensor.squeeze(-1) if linear else tensor
    return renamed


def encoder_names(keys: Mapping[str, Any]) -> Names:
    """Return the names of a semantic encoder's tensors: published → in `PublishedEncoder`."""
    names = {}
    for key in keys:
        if key.startswith(BACKBONE):
            rest = key.removeprefix(BACKBONE).replace("classifier.0.", "norm.", 1)
            names[key] = f"backbone.{rest}"
            continue
        for theirs, ours in ENCODER.items():
            if key.startswith(theirs):
                names[key] = ours + key.removeprefix(theirs)
    return names


def encoder_name(ours: str) -> str:
    """Return the published name of a tensor of `PublishedEncoder`."""
    if ours.startswith("backbone."):
        return BACKBONE + ours.removeprefix("backbone.").replace("norm.", "classifier.0.", 1)
    for theirs, here in ENCODER.items():
        if ours.startswith(here):
            return theirs + ours.removeprefix(here)
    return ours


def without_second_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an encoder's tensors without their second names.

    Raises
    ------
    ContractError
        If a tensor has different values under its two names, or one of them alone.
    """
    second = {k: v for k, v in tensors.items() if k.startswith(SECOND_NAME)}
    kept = {k: v for k, v in tensors.items() if k not in second}
    firsts = {"backbone." + k.removeprefix(SECOND_NAME): v for k, v in second.items()}
    named = {k: v for k, v in kept.items() if k.startswith("backbone.")}
    if not named or not firsts:  # listed under one name alone
        return kept | firsts
    for key in sorted(named.keys() ^ firsts.keys()):
        only = key if key in named else SECOND_NAME + key.removeprefix("backbone.")
        raise ContractError(f"{only}: expected under backbone. and {SECOND_NAME} alike")
    for key, value in firsts.items():
        if not value.equal(named[key]):
            raise ContractError(
                f"{key} and {SECOND_NAME}{key.removeprefix('backbone.')}: one tensor under two"
                " names, with different values; the file is damaged or was put together"
            )
    return kept


def encoder_of(shapes: Shapes, *, heads: int) -> dict[str, Any]:
    """Return the arguments of `PublishedEncoder` from the shapes of its tensors.

    Raises
    ------
    ContractError
        If they do not form such an encoder.
    """
    channels: list[int] = []
    depths: list[int] = []
    for level, layers in enumerate(_levels(shapes)):
        scale = shapes.get(f"{BACKBONE}features.{2 * level + 1}.0.layer_scale")
        if scale is None:
            raise ContractError(f"weights are missing: {BACKBONE}features.{2 * level + 1}.0")
        channels.append(scale[0])
        depths.append(layers)
    position = shapes.get("positional_encoding.pe", ())
    if not channels or len(position) != 3:
        missing = "positional_encoding.pe" if channels else f"{BACKBONE}features"
        raise ContractError(f"weights are missing: {missing}")
    if channels[-1] % heads:
        raise ContractError(f"{channels[-1]} channels are no multiple of {heads} attention heads")
    return {
        "kind": "published",
        "channels": tuple(channels),
        "depths": tuple(depths),
        "num_slices": position[1],
        "dim": channels[-1],
        "num_heads": heads,
    }


def _levels(shapes: Shapes) -> Iterator[int]:
    """Yield the number of blocks of each level of the ConvNeXt."""
    level = 0
    while blocks := _count(shapes, f"{BACKBONE}features.{2 * level + 1}"):
        yield blocks
        level += 1


def _count(shapes: Shapes, prefix: str) -> int:
    """Return one more than the largest number that follows a prefix; 0 if none does."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return max((int(m[1]) + 1 for key in shapes if (m := pattern.match(key))), default=0)


def unet_arguments(config: UnetConfig) -> dict[str, Any]:
    """Return the denoiser's architecture as JSON-able arguments."""
    return asdict(config)
