"""The published LDAE a second time: random weights in its layout, and plain functions on them.

Written from docs/import-weights.md's facts alone: nothing of `pipeline.nets` is used, and tensors
are looked up by the names of the files. Slow and simple on purpose.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Sizes:
    """What the tests vary. The default is small; `FULL` is as published."""

    base: int = 32
    multipliers: tuple[int, ...] = (1, 2, 3)
    blocks: int = 2
    attention: tuple[int, ...] = (1, 2)
    latents: int = 3
    widths: tuple[int, ...] = (8, 16, 24, 32)
    depths: tuple[int, ...] = (1, 1, 2, 1)
    slices: int = 32
    spread: float = 1.0

    @property
    def dim(self) -> int:
        return self.widths[-1]


SMALL = Sizes()
FULL = Sizes(base=256, widths=(96, 192, 384, 768), depths=(3, 3, 27, 3), slices=128)


class _Maker:
    """Fills a state dict with reproducible numbers that keep activations near 1."""

    def __init__(self, seed: int, spread: float = 1.0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.spread = spread
        self.made: Tensors = {}

    def layer(self, name: str, *shape: int, gain: float = 1.0) -> None:
        fan_in = math.prod(shape[1:])
        scale = gain * self.spread / math.sqrt(fan_in)
        self.made[f"{name}.weight"] = torch.randn(shape, generator=self.generator) * scale
        self.made[f"{name}.bias"] = torch.randn(shape[0], generator=self.generator) * 0.1

    def norm(self, name: str, width: int) -> None:
        self.made[f"{name}.weight"] = 1 + 0.2 * torch.randn(width, generator=self.generator)
        self.made[f"{name}.bias"] = 0.1 * torch.randn(width, generator=self.generator)

    def res_block(self, name: str, width_in: int, width: int, emb: int, *, semantic: bool) -> None:
        self.norm(f"{name}.in_layers.0", width_in)
        self.layer(f"{name}.in_layers.2", width, width_in, 3, 3, 3)
        self.layer(f"{name}.emb_layers.1", 2 * width, emb, gain=0.3)
        if semantic:
            self.layer(f"{name}.emb_z_layers.1", 2 * width, emb, gain=0.3)
        self.norm(f"{name}.out_layers.0", width)
        self.layer(f"{name}.out_layers.3", width, width, 3, 3, 3, gain=0.5)
        if width_in != width:
            self.layer(f"{name}.skip_connection", width, width_in, 1, 1, 1)

    def attention(self, name: str, width: int) -> None:
        self.norm(f"{name}.norm", width)
        self.layer(f"{name}.qkv", 3 * width, width, 1)
        self.layer(f"{name}.proj_out", width, width, 1, gain=0.5)


def make_decoder(sizes: Sizes = SMALL, *, branch: bool = True, seed: int = 0) -> Tensors:
    """Return denoiser and gradient branch as decoder.pth has them."""
    maker, base, emb = _Maker(seed, sizes.spread), sizes.base, 4 * sizes.base
    maker.layer("time_embed.0", emb, base)
    maker.layer("time_embed.2", emb, emb)
    maker.layer("input_blocks.0.0", base, sizes.latents, 3, 3, 3)
    skips, width, place = [base], base, 1
    for level, times in enumerate(sizes.multipliers):
        for _ in range(sizes.blocks):
            maker.res_block(f"input_blocks.{place}.0", width, base * times, emb, semantic=False)
            width = base * times
            if level in sizes.attention:
                maker.attention(f"input_blocks.{place}.1", width)
            skips.append(width)
            place += 1
        if level + 1 < len(sizes.multipliers):
            maker.res_block(f"input_blocks.{place}.0", width, width, emb, semantic=False)
            skips.append(width)
            place += 1
    for prefix in ("", "shift_") if branch else ("",):
        _make_half(maker, prefix, sizes, list(skips), width)
    if branch:
        maker.layer("label_emb", emb, sizes.dim)
    return maker.made


@cache
def _small_decoder() -> Tensors:
    return make_decoder()


def small_decoder() -> Tensors:
    """Return the default decoder, drawn once; in a dictionary of its own, for tests to change."""
    return dict(_small_decoder())


def _make_half(maker: _Maker, prefix: str, sizes: Sizes, skips: list[int], width: int) -> None:
    emb, semantic = 4 * sizes.base, bool(prefix)
    maker.res_block(f"{prefix}middle_block.0", width, width, emb, semantic=semantic)
    maker.attention(f"{prefix}middle_block.1", width)
    maker.res_block(f"{prefix}middle_block.2", width, width, emb, semantic=semantic)
    place = 0
    for level in reversed(range(len(sizes.multipliers))):
        out = sizes.base * sizes.multipliers[level]
        for block in range(sizes.blocks + 1):
            name = f"{prefix}output_blocks.{place}"
            maker.res_block(f"{name}.0", width + skips.pop(), out, emb, semantic=semantic)
            width = out
            if level in sizes.attention:
                maker.attention(f"{name}.1", out)
            if level > 0 and block == sizes.blocks:
                end = 2 if level in sizes.attention else 1
                maker.res_block(f"{name}.{end}", out, out, emb, semantic=semantic)
            place += 1
    maker.norm(f"{prefix}out.0", width)
    maker.layer(f"{prefix}out.2", sizes.latents, width, 3, 3, 3, gain=0.7)


def make_encoder(sizes: Sizes = SMALL, *, seed: int = 1, twice: bool = True) -> Tensors:
    """Return the semantic encoder as encoder.pth has it, the ConvNeXt under both its names."""
    maker, root, dim = _Maker(seed), "backbone.backbone", sizes.dim
    for level, (width, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True)):
        entry = f"{root}.features.{2 * level}"
        if level == 0:
            maker.layer(f"{entry}.0", width, 1, 4, 4)
            maker.norm(f"{entry}.1", width)
        else:
            maker.norm(f"{entry}.0", sizes.widths[level - 1])
            maker.layer(f"{entry}.1", width, sizes.widths[level - 1], 2, 2)
        for block in range(depth):
            name = f"{root}.features.{2 * level + 1}.{block}"
            maker.made[f"{name}.layer_scale"] = 0.3 * torch.randn(
                width, 1, 1, generator=maker.generator
            )
            maker.layer(f"{name}.block.0", width, 1, 7, 7)
            maker.norm(f"{name}.block.2", width)
            maker.layer(f"{name}.block.3", 4 * width, width)
            maker.layer(f"{name}.block.5", width, 4 * width)
    maker.norm(f"{root}.classifier.0", dim)
    if twice:
        maker.made |= {
            "slice_distributed.module." + key.removeprefix("backbone."): value
            for key, value in maker.made.items()
        }
    maker.made["positional_encoding.pe"] = positions(sizes.slices, dim)
    maker.layer("soft_attention.linear", 1, dim)
    for name in ("query_projection", "key_projection", "value_projection"):
        maker.layer(name, dim, dim)
    maker.layer("cross_attention.in_proj", 3 * dim, dim)
    for part in ("weight", "bias"):
        maker.made[f"cross_attention.in_proj_{part}"] = maker.made.pop(
            f"cross_attention.in_proj.{part}"
        )
    maker.layer("cross_attention.out_proj", dim, dim)
    maker.norm("layer_norm_after_attention", dim)
    return maker.made


def positions(length: int, width: int) -> torch.Tensor:
    table = torch.zeros(1, length, width)
    for place in range(length):
        for i in range(width):
            angle = place / 10_000 ** ((i - i % 2) / width)
            table[0, place, i] = math.cos(angle) if i % 2 else math.sin(angle)
    return table


def naive_y_sem(w: Tensors, volume: torch.Tensor, *, heads: int = 8) -> torch.Tensor:
    """y_sem of (B, 1, X, Y, Z), one slice after another."""
    codes = []
    for scan in volume:
        vectors = [_convnext(w, scan[None, :, :, :, z]) for z in range(scan.shape[-1])]
        tokens = torch.cat(vectors) + w["positional_encoding.pe"][0]
        score = F.linear(tokens, w["soft_attention.linear.weight"], w["soft_attention.linear.bias"])
        query = (score.softmax(0) * tokens).sum(0, keepdim=True)
        q, k, v = (
            F.linear(x, w[f"{name}_projection.weight"], w[f"{name}_projection.bias"])
            for name, x in (("query", query), ("key", tokens), ("value", tokens))
        )
        parts = zip(
            (q, k, v),
            w["cross_attention.in_proj_weight"].chunk(3),
            w["cross_attention.in_proj_bias"].chunk(3),
            strict=True,
        )
        q, k, v = (F.linear(x, weight, bias) for x, weight, bias in parts)
        made = []
        for one_q, one_k, one_v in zip(
            q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True
        ):
            attention = (one_q @ one_k.T / math.sqrt(one_q.shape[1])).softmax(1)
            made.append(attention @ one_v)
        out = F.linear(
            torch.cat(made, 1),
            w["cross_attention.out_proj.weight"],
            w["cross_attention.out_proj.bias"],
        )
        name = "layer_norm_after_attention"
        codes.append(F.layer_norm(out, out.shape[1:], w[f"{name}.weight"], w[f"{name}.bias"]))
    return torch.cat(codes)


def _convnext(w: Tensors, image: torch.Tensor) -> torch.Tensor:
    root, x, level = "backbone.backbone.features", image, 0
    while f"{root}.{2 * level}.0.weight" in w:
        entry = f"{root}.{2 * level}"
        if level == 0:
            x = F.conv2d(x, w[f"{entry}.0.weight"], w[f"{entry}.0.bias"], stride=4)
            x = _channel_norm(w, f"{entry}.1", x)
        else:
            x = _channel_norm(w, f"{entry}.0", x)
            x = F.conv2d(x, w[f"{entry}.1.weight"], w[f"{entry}.1.bias"], stride=2)
        block = 0
        while f"{root}.{2 * level + 1}.{block}.layer_scale" in w:
            name = f"{root}.{2 * level + 1}.{block}"
            h = F.conv2d(
                x,
                w[f"{name}.block.0.weight"],
                w[f"{name}.block.0.bias"],
                padding=3,
                groups=x.shape[1],
            )
            h = _channel_norm(w, f"{name}.block.2", h).permute(0, 2, 3, 1)
            h = F.gelu(F.linear(h, w[f"{name}.block.3.weight"], w[f"{name}.block.3.bias"]))
            h = F.linear(h, w[f"{name}.block.5.weight"], w[f"{name}.block.5.bias"])
            x = x + w[f"{name}.layer_scale"] * h.permute(0, 3, 1, 2)
            block += 1
        level += 1
    x = _channel_norm(w, "backbone.backbone.classifier.0", x.mean((2, 3), keepdim=True))
    return x.flatten(1)


def _channel_norm(w: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return scaled * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def naive_eps(w: Tensors, x: torch.Tensor, t: int, *, heads: int = 1) -> torch.Tensor:
    """What the denoiser predicts at one integer timestep."""
    return _decode(w, "", *_trunk(w, x, t, heads), None, heads)


def naive_gradient(
    w: Tensors, x: torch.Tensor, t: int, y_sem: torch.Tensor, *, heads: int = 1
) -> torch.Tensor:
    """G of the second branch on the denoiser's features."""
    y_emb = F.linear(y_sem, w["label_emb.weight"], w["label_emb.bias"])
    return _decode(w, "shift_", *_trunk(w, x, t, heads), y_emb, heads)


def naive_noise(
    w: Tensors, x: torch.Tensor, t: int, y_sem: torch.Tensor, *, heads: int = 1
) -> torch.Tensor:
    """The noise that sampling uses: eps − sqrt(1 − alpha_bar) · G."""
    gradient = naive_gradient(w, x, t, y_sem, heads=heads)
    return naive_eps(w, x, t, heads=heads) - math.sqrt(1 - alpha_bar(t)) * gradient


def alpha_bar(t: int) -> float:
    product = 1.0
    for i in range(t + 1):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
    return product


def naive_ddim(x: torch.Tensor, noise: torch.Tensor, here: int, there: int) -> torch.Tensor:
    """One deterministic step, up or down."""
    z_0 = (x - math.sqrt(1 - alpha_bar(here)) * noise) / math.sqrt(alpha_bar(here))
    return math.sqrt(alpha_bar(there)) * z_0 + math.sqrt(1 - alpha_bar(there)) * noise


def _trunk(w: Tensors, x: torch.Tensor, t: int, heads: int):
    base = w["input_blocks.0.0.weight"].shape[0]
    half = base // 2
    angles = [t * 10_000 ** (-i / half) for i in range(half)]
    features = torch.tensor([[*map(math.cos, angles), *map(math.sin, angles)]])
    emb = F.linear(features, w["time_embed.0.weight"], w["time_embed.0.bias"])
    emb = F.linear(F.silu(emb), w["time_embed.2.weight"], w["time_embed.2.bias"])
    h = F.conv3d(x, w["input_blocks.0.0.weight"], w["input_blocks.0.0.bias"], padding=1)
    skips, place = [h], 1
    deepest = _places(w, "input_blocks") - 1
    a_level = _blocks_a_level(w)
    while place <= deepest:
        down = place % (a_level + 1) == 0
        h = _res_block(w, f"input_blocks.{place}.0", h, emb, None, "down" if down else "")
        if f"input_blocks.{place}.1.qkv.weight" in w:
            h = _attention(w, f"input_blocks.{place}.1", h, heads)
        skips.append(h)
        place += 1
    return h, skips, emb


def _places(w: Tensors, prefix: str) -> int:
    return 1 + max(int(k.split(".")[1]) for k in w if k.startswith(f"{prefix}."))


def _blocks_a_level(w: Tensors) -> int:
    ups = {k.split(".")[1] for k in w if k.startswith("output_blocks.")
           and k.split(".")[2] in "12" and ".in_layers." in k}  # fmt: skip
    return _places(w, "output_blocks") // (len(ups) + 1) - 1


def _decode(w, prefix, h, skips, emb, y_emb, heads) -> torch.Tensor:
    skips = list(skips)
    h = _res_block(w, f"{prefix}middle_block.0", h, emb, y_emb)
    h = _attention(w, f"{prefix}middle_block.1", h, heads)
    h = _res_block(w, f"{prefix}middle_block.2", h, emb, y_emb)
    for place in range(_places(w, f"{prefix}output_blocks")):
        name = f"{prefix}output_blocks.{place}"
        h = _res_block(w, f"{name}.0", torch.cat([h, skips.pop()], 1), emb, y_emb)
        if f"{name}.1.qkv.weight" in w:
            h = _attention(w, f"{name}.1", h, heads)
        for end in (f"{name}.1", f"{name}.2"):
            if f"{end}.in_layers.0.weight" in w:
                h = _res_block(w, end, h, emb, y_emb, "up")
    h = F.silu(_group_norm(w, f"{prefix}out.0", h))
    return F.conv3d(h, w[f"{prefix}out.2.weight"], w[f"{prefix}out.2.bias"], padding=1)


def _res_block(w, name, x, emb, y_emb, resample="") -> torch.Tensor:
    h = _resample(F.silu(_group_norm(w, f"{name}.in_layers.0", x)), resample)
    x = _resample(x, resample)
    h = F.conv3d(h, w[f"{name}.in_layers.2.weight"], w[f"{name}.in_layers.2.bias"], padding=1)
    h = _group_norm(w, f"{name}.out_layers.0", h)
    for key, embedding in ((f"{name}.emb_layers.1", emb), (f"{name}.emb_z_layers.1", y_emb)):
        if embedding is not None:
            both = F.linear(F.silu(embedding), w[f"{key}.weight"], w[f"{key}.bias"])
            scale, shift = both[:, :, None, None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
    name_2 = f"{name}.out_layers.3"
    h = F.conv3d(F.silu(h), w[f"{name_2}.weight"], w[f"{name_2}.bias"], padding=1)
    if f"{name}.skip_connection.weight" in w:
        key = f"{name}.skip_connection"
        x = F.conv3d(x, w[f"{key}.weight"], w[f"{key}.bias"])
    return x + h


def _resample(x: torch.Tensor, how: str) -> torch.Tensor:
    if how == "down":
        return F.avg_pool3d(x, (1, 2, 2))
    return x.repeat_interleave(2, 3).repeat_interleave(2, 4) if how else x


def _group_norm(w: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    groups = x.unflatten(1, (32, -1)).flatten(2)
    centred = groups - groups.mean(2, keepdim=True)
    scaled = (centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()).reshape(x.shape)
    shape = (1, -1, 1, 1, 1)
    return scaled * w[f"{name}.weight"].reshape(shape) + w[f"{name}.bias"].reshape(shape)


def _attention(w: Tensors, name: str, x: torch.Tensor, heads: int) -> torch.Tensor:
    flat = x.flatten(2)
    qkv = F.conv1d(
        _group_norm(w, f"{name}.norm", x).flatten(2), w[f"{name}.qkv.weight"], w[f"{name}.qkv.bias"]
    )
    made = []
    for head in qkv.chunk(heads, 1):
        q, k, v = head.chunk(3, 1)
        scores = torch.einsum("bct,bcs->bts", q, k) / math.sqrt(q.shape[1])
        made.append(torch.einsum("bts,bcs->bct", scores.softmax(-1), v))
    h = F.conv1d(torch.cat(made, 1), w[f"{name}.proj_out.weight"], w[f"{name}.proj_out.bias"])
    return (flat + h).reshape(x.shape)
