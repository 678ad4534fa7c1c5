"""Parameters of stages 1 and 2 of training, on latents or, for the baseline, on voxels."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.section import Fraction, OptimParams, Positive, Section

Prediction = Literal["epsilon", "v"]
Shift = Literal["posterior_mean", "score"]
Posterior = Literal["sample", "mean", "stored_draw"]


class DenoiserParams(Section):
    """The 3D UNet that predicts the noise."""

    base_channels: Positive = 32
    """Channels of the first level."""
    multipliers: tuple[Positive, ...] = (1, 2, 2)
    """Channels a level, in units of base_channels."""
    num_res_blocks: Positive = 1
    """Residual blocks a level."""
    attention_levels: tuple[int, ...] = (2,)
    """Levels (0 is the finest) with self-attention."""
    dropout: Fraction = 0.0
    """Dropout inside residual blocks."""
    pooling: Literal["isotropic", "anisotropic"] = "isotropic"
    """`anisotropic` keeps the first axis at full size, as published."""

    @model_validator(mode="after")
    def _levels_are_there(self) -> "DenoiserParams":
        levels = len(self.multipliers)
        absent = [level for level in self.attention_levels if not 0 <= level < levels]
        if absent:
            raise ValueError(f"attention_levels {absent[0]}: the levels are 0 to {levels - 1}")
        return self


class DiffusionParams(Section):
    """The forward process."""

    num_train_timesteps: Annotated[int, Field(ge=2)] = 1000
    """T."""
    beta_schedule: Literal["linear", "cosine"] = "linear"
    """Schedule of beta."""
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """beta at t = 0 (linear)."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """beta at t = T - 1 (linear)."""


class LdmParams(OptimParams):
    """Stage 1, on latents or voxels."""

    steps: Positive = 130
    batch_size: Positive = 8
    lr: Annotated[float, Field(gt=0)] = 5e-4
    posterior: Posterior = "mean"
    """Train on the posterior mean, on posterior draws (fresh each step), or, as published, on one
    draw a scan that never changes; both stages."""
    scale: Literal["voxel", "channel", "scalar"] | Annotated[float, Field(gt=0)] = "voxel"
    """Latent standardisation fitted on the training split: mean brain and standard deviation of
    unseen scans at every voxel; mean and standard deviation of every channel, or over all; or a
    given scale factor."""
    prediction: Prediction = "v"
    """What the network predicts: v = alpha eps - sigma x_0, or the noise."""
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None
    """Clip of the SNR in the loss's weight; none weighs every timestep alike."""
    diffusion: DiffusionParams = DiffusionParams()
    """Forward process."""
    denoiser: DenoiserParams = DenoiserParams()
    """Network."""


class TrainLdmParams(LdmParams):
    """Stage 1: latent diffusion."""

    fine_tune_steps: Positive | None = 30
    """Optimiser steps in place of `steps` where training starts from a finished model; none is as
    many."""
    start_from: Literal["auto", "bundled"] | Path | None = "auto"
    """Model whose weights training starts from, to fine-tune it: the bundled LDAE (`auto`: where it
    fits latents and sizes, else none), or the folder of an LDAE or of a model of train-ldm. Its
    sizes must be those asked for here; its latent statistics are kept, so that `scale` is without
    effect."""


class SemanticEncoderParams(Section):
    """The network that gives y_sem."""

    kind: Literal["latent", "latent-2.5d", "slices", "published"] = "latent"
    """`latent`: 3D convolutions and attention pooling over the latent. `latent-2.5d`: 2D
    convolutions over the latent's axial slices, attention over slices. `slices`: a ConvNeXt over
    the axial slices of volumes.zarr. `published`: the same layer by layer as published, so that
    published weights fit."""
    channels: tuple[Positive, ...] = (32, 64, 128)
    """Channels a level; each level after the first halves the grid. Four for a ConvNeXt."""
    dim: Positive = 256
    """Length of y_sem; for `published` the channels of the last level."""
    num_heads: Positive = 4
    """Heads of the attention pooling."""
    modes: Annotated[int, Field(ge=0)] = 80
    """Principal modes of the training latents whose amounts are the first numbers of y_sem, at most
    half of them, and make G exact in their subspace; 0 is as published. Not used by encoders that
    read volumes."""
    prior_people: Annotated[float, Field(ge=0)] = 50.0
    """As how many training people those count whose mean latent and principal modes come with the
    package (for the bundled autoencoder) or with `start_from`; 0 takes the study's people alone."""
    tissue_modes: Annotated[int, Field(ge=0)] = 64
    """Principal modes of tissue fractions (fluid, grey and white matter a latent voxel) whose
    amounts are the next numbers of y_sem, at most a quarter of them; 0 is as published. What reads
    them from latents comes with the package for the bundled autoencoder, and is fitted on volumes
    for others. Not used by encoders that read volumes."""
    tissue_net: Literal["bundled", "fit"] = "bundled"
    """`bundled`: what reads tissue from latents is the package's, where it fits the latents. `fit`:
    it is fitted anew on volumes.zarr."""
    tissue_steps: Positive = 1200
    """Steps of that fit, where it is made."""
    depths: tuple[Positive, ...] = (3, 3, 27, 3)
    """Blocks a level of the ConvNeXt; (3, 3, 27, 3) is ConvNeXt-Small."""
    num_slices: Positive | None = None
    """Evenly spread slices that `slices` reads; none is all. `published` reads all."""
    weights: Path | None = None
    """ImageNet weights to start from: a ConvNeXt of torchvision (.pth or .safetensors)."""

    @property
    def used_modes(self) -> int:
        """Modes of latents in y_sem."""
        return min(self.modes, self.dim // 2)

    @property
    def used_tissue_modes(self) -> int:
        """Modes of tissue fractions in y_sem."""
        return min(self.tissue_modes, self.dim // 4)

    @property
    def reads_volumes(self) -> bool:
        """Whether the network reads volumes instead of latents."""
        return self.kind in ("slices", "published")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "SemanticEncoderParams":
        if self.reads_volumes and len(self.channels) != len(self.depths):
            raise ValueError(f"channels: {len(self.channels)} levels, depths {len(self.depths)}")
        if self.kind == "published" and self.dim != self.channels[-1]:
            raise ValueError(
                f"dim {self.dim}: published has {self.channels[-1]}, its last channels"
            )
        if self.kind == "published" and self.num_slices is not None:
            raise ValueError("num_slices: published reads every slice")
        if self.channels[-1] % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide {self.channels[-1]} channels")
        if self.weights is not None and not self.reads_volumes:
            raise ValueError(f"weights: read by slices and published alone, not by {self.kind}")
        return self


class LdaeParams(OptimParams):
    """Stage 2, on latents or voxels."""

    steps: Positive = 80
    batch_size: Annotated[int, Field(ge=2)] = 8
    lr: Annotated[float, Field(gt=0)] = 1e-4
    checkpoint_every: Positive = 20
    encoder: SemanticEncoderParams = SemanticEncoderParams()
    """Semantic encoder."""
    shift: Shift = "posterior_mean"
    """Coefficient of G in the training loss: as published, or the one used when sampling."""
    weighting: Literal["pdae", "uniform"] = "pdae"
    """lambda_t: SNR^0.1 / (1 + SNR), or 1."""


class TrainLdaeParams(LdaeParams):
    """Stage 2: semantic encoder and gradient estimator on the frozen denoiser."""

    fine_tune_steps: Positive | None = 20
    """Optimiser steps in place of `steps` where training starts from a finished model; none is as
    many."""
    start_from: Literal["auto", "bundled"] | Path | None = "auto"
    """LDAE whose semantic encoder and gradient estimator training starts from: the bundled one
    (`auto`: where it fits latents, sizes and stage 1, else none), or a folder. Sizes must be those
    asked for here, and train_ldm.start_from the same; its modes count as those of
    `encoder.prior_people`."""
    source: Literal["train", "bundled", "path"] = "train"
    """`train`: both stages are trained. `bundled`: the finished LDAE inside the package is taken,
    and no stage is trained; `path`: that of the folder below."""
    path: Path | None = None
    """Folder of a finished LDAE: another study's, or of `pipeline import-ldae`."""

    @model_validator(mode="after")
    def _path_with_source(self) -> "TrainLdaeParams":
        if (self.source == "path") != (self.path is not None):
            raise ValueError("train_ldae.path goes with train_ldae.source: path")
        if self.source != "train" and self.start_from not in (None, "auto"):
            raise ValueError("train_ldae.start_from goes with train_ldae.source: train")
        return self


class VoxelDenoiserParams(DenoiserParams):
    """A denoiser that fits a grid of voxels: narrower, and a level more."""

    base_channels: Positive = 16
    multipliers: tuple[Positive, ...] = (1, 2, 4, 4)
    attention_levels: tuple[int, ...] = (3,)


class VoxelLdmParams(LdmParams):
    """Stage 1 on voxels."""

    batch_size: Positive = 2
    posterior: Literal["sample", "mean"] = "mean"
    denoiser: VoxelDenoiserParams = VoxelDenoiserParams()


class VoxelEncoderParams(SemanticEncoderParams):
    """A semantic encoder that starts from a grid of voxels."""

    channels: tuple[Positive, ...] = (8, 16, 32, 64, 128)
    modes: Annotated[int, Field(ge=0)] = 32
    tissue_modes: Annotated[int, Field(ge=0)] = 0


class VoxelLdaeParams(LdaeParams):
    """Stage 2 on voxels."""

    steps: Positive = 160
    lr: Annotated[float, Field(gt=0)] = 5e-4
    checkpoint_every: Positive = 100
    batch_size: Annotated[int, Field(ge=2)] = 2
    encoder: VoxelEncoderParams = VoxelEncoderParams()


class VoxelDaeParams(Section):
    """The voxel-space diffusion autoencoder of `pipeline train-voxel-dae`, a baseline."""

    train_ldm: VoxelLdmParams = VoxelLdmParams()
    """Stage 1: the same code and training on voxels, networks that fit the grid."""
    train_ldae: VoxelLdaeParams = VoxelLdaeParams()
    """Stage 2."""
