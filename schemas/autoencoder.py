"""Parameters of the frozen autoencoder: its source, and its training."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.section import OptimParams, Positive, Section, Triple

NonNegative = Annotated[float, Field(ge=0)]


class AutoencoderParams(Section):
    """Where the frozen autoencoder of the study comes from."""

    source: Literal["bundled", "train", "path"] = "bundled"
    """`bundled`: the one inside the package; `train`: train_ae's; `path`: the folder below."""
    factor: Literal["auto", 4, 8] = "auto"
    """Downsampling of the bundled one. `auto`: 8 (that of 1.5 mm) below 2.1 mm, else 4 (that of
    3 mm). At 1.5 mm 4 keeps far more detail, in latents eight times as large."""
    path: Path | None = None
    """Folder of another study's autoencoder, of `pipeline import-ae`, or a MONAI bundle."""

    @model_validator(mode="after")
    def _path_with_source(self) -> "AutoencoderParams":
        if (self.source == "path") != (self.path is not None):
            raise ValueError("autoencoder.path goes with autoencoder.source: path")
        return self


class PerceptualParams(Section):
    """LPIPS (SqueezeNet) on slices of three planes."""

    weights: Path | None = None
    """State dict of lpips.LPIPS(net="squeeze"), .pt or .safetensors; none switches the term off."""
    weight: NonNegative = 1e-3
    """Weight of the term."""
    slices: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the slices of each plane that is compared at a step."""


class AdversarialParams(Section):
    """MONAI's PatchDiscriminator, least squares."""

    weight: NonNegative = 0.0
    """Weight of the term in the autoencoder's loss; 0 trains no discriminator."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps before the discriminator starts and the term counts."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate of the discriminator."""
    channels: Positive = 64
    """Channels of its first layer."""
    layers: Positive = 3
    """Layers; each halves the grid."""


class TrainAeParams(OptimParams):
    """The compression autoencoder (MONAI AutoencoderKL)."""

    steps: Positive = 800
    batch_size: Positive = 1
    lr: Annotated[float, Field(gt=0)] = 2e-3
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.985
    channels: tuple[Positive, ...] = (32, 64)
    """Channels a level; each level after the first halves the grid."""
    patch: Positive = 2
    """Voxels a side folded into channels before the first convolution; 1 is none."""
    latent_channels: Positive = 3
    """Channels of the latent."""
    num_res_blocks: Positive = 1
    """Residual blocks a level."""
    start_from: Literal["bundled"] | Path | None = None
    """Folder of an autoencoder whose weights training starts from, to fine-tune it. Sizes must be
    its own; further latent channels start without effect, of fewer the decoder keeps those it
    weighs most."""
    norm_groups: Positive = 8
    """Groups of GroupNorm; divides every entry of channels."""
    kl_weight: float = 3e-8
    """Weight of the KL divergence (summed over the latent, mean over scans)."""
    ssim_weight: NonNegative = 0.2
    """Weight of 1 - SSIM, mean inside the brain; 0 leaves it out."""
    flip: bool = False
    """Left-right flips as augmentation (mixes hemispheres)."""
    augment: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of training volumes turned, stretched, blurred and given another contrast at random."""
    crop: Triple | None = None
    """Train on random boxes of so many voxels (small GPUs); none takes whole volumes."""
    checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    perceptual: PerceptualParams = PerceptualParams()
    """Perceptual term."""
    adversarial: AdversarialParams = AdversarialParams()
    """Patch-adversarial term (least squares)."""
