"""Every parameter of the pipeline: one section a stage, each field with its unit and default.

The defaults are the `demo` preset. Unknown keys are refused.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.autoencoder import AutoencoderParams, TrainAeParams
from schemas.report import ReportParams
from schemas.section import Fraction, OptimParams, Positive, Precision, Section, Triple

Prediction = Literal["epsilon", "v"]
Shift = Literal["posterior_mean", "score"]
Posterior = Literal["sample", "mean", "stored_draw"]


class SplitParams(Section):
    """Subject-level split; the test share is what train and val leave."""

    train: Fraction = 0.6
    """Share of subjects in the training split."""
    val: Fraction = 0.15
    """Share of subjects in the validation split (early stopping, model selection)."""
    seed: int = 0
    """Seed of the hash that ranks the subjects (within a diagnosis, so that each is spread evenly).

    Shares are exact to one subject. Row order and number of scans change nothing; adding subjects
    can move a few of those that lie at the cuts, so freeze the manifest of a finished study.
    """

    @model_validator(mode="after")
    def _leaves_test(self) -> "SplitParams":
        if self.train + self.val > 1:
            raise ValueError("train + val must be at most 1")
        return self


class PhantomParams(Section):
    """The embedded demonstration cohort. Its numbers prove the pipeline, not a clinical claim."""

    subjects: Positive = 20
    """Number of subjects."""
    zooms: Annotated[float, Field(ge=1, le=4)] = 2.0
    """Voxel size of the generated heads (mm)."""
    multi_visit_share: Fraction = 0.33
    """Share of subjects with follow-up visits."""
    seed: int = 0
    """Cohort seed; each subject's own seed is derived from it and the subject id."""
    masks: bool = False
    """Write the true brain masks too (derivatives/truth)."""


class CohortParams(Section):
    """Which scans, and how they are split."""

    source: Literal["phantom", "bids", "folder", "table", "dicom"] = "phantom"
    """Kind of input. `folder` takes every image below the input folder, `dicom` series folders."""
    input: Path | None = None
    """BIDS root, folder, or CSV/TSV/Parquet table. Not used by `phantom`."""
    columns: dict[str, str] = Field({})
    """Rename label columns, for example {age_years: AGE, diagnosis: DX}."""
    phantom: PhantomParams = PhantomParams()
    """The phantom cohort, used when source is `phantom`."""
    split: SplitParams = SplitParams()
    """Subject-level split."""


class GridParams(Section):
    """The MNI152 grid that every volume is resampled to (RAS), centred on the template brain."""

    shape: Triple = (56, 64, 56)
    """Voxels along x, y, z."""
    zooms: Annotated[float, Field(gt=0)] = 3.0
    """Isotropic voxel size (mm)."""


class QcParams(Section):
    """Thresholds of the per-scan quality control; outside `fail` the scan is quarantined."""

    brain_ml_warn: tuple[float, float] = (950.0, 2000.0)
    """Plausible brain volume (ml)."""
    brain_ml_fail: tuple[float, float] = (600.0, 2600.0)
    """Brain volume (ml) beyond which a scan fails."""
    ncc_warn: float = 0.40
    """Correlation with the template inside its brain mask, below which a scan is suspicious."""
    ncc_fail: float = 0.15
    """Correlation with the template below which a scan fails."""
    dice_warn: float = 0.92
    """Dice of brain mask and template mask below which a scan is suspicious."""
    dice_fail: float = 0.75
    """Dice of brain mask and template mask below which a scan fails."""
    scaling_warn: tuple[float, float] = (0.8, 2.0)
    """Determinant of the affine from the scan to the template; outside is suspicious."""
    coverage_warn: Fraction = 0.99
    """Share of the template brain inside the field of view, below which a scan is suspicious."""
    coverage_fail: Fraction = 0.80
    """Share of the template brain inside the field of view, below which a scan fails."""
    turned_warn: float = 45.0
    """Rotation from the template's pose (degrees) above which the header is suspicious."""


class PreprocessParams(Section):
    """From a raw head to a volume on the MNI grid."""

    grid: GridParams = GridParams()
    """Target grid."""
    brain_mask: Literal["auto", "deepbet", "hd-bet", "bet", "none"] = "auto"
    """Skull stripping. `auto` uses deepbet unless the input is already stripped, and asks another
    method where the outcome is doubtful. `hd-bet` and `bet` are optional extras."""
    bias_field: bool = True
    """N4 bias-field correction inside the brain mask."""
    bias_field_step: Annotated[float, Field(ge=2, le=12)] = 6.0
    """Distance (mm) of the samples that N4 estimates the field from; larger is faster."""
    registration: Literal["rigid", "affine", "syn"] = "affine"
    """Transform to MNI152. `syn` removes much of the atrophy that a model should learn."""
    registration_zooms: Annotated[float, Field(gt=0)] = 3.0
    """Voxel size (mm) at which the transform is estimated."""
    intensity_percentiles: tuple[float, float] = (0.5, 99.5)
    """Percentiles inside the brain that map to 0 and 1; beyond is clipped."""
    max_bytes: Positive = 2_000_000_000
    """Largest decompressed image (bytes) that is read at all."""
    qc: QcParams = QcParams()
    """Quality control."""


class EncodeParams(Section):
    """Frozen autoencoder over every volume, once."""

    batch_size: Positive | Literal["auto"] = 4
    """Scans a forward pass; halved when memory ends. `auto`: what half of the free memory holds,
    at most 16 on a GPU and 4 on the CPU."""
    precision: Precision | Literal["auto"] = "auto"
    """Arithmetic of the encoder. `auto`: bf16 where the device computes it natively and it gives
    the latents of fp32 to 2 %, else fp32; an existing store keeps its own."""
    chunk_scans: Positive = 64
    """Scans a Zarr chunk."""


class DenoiserParams(Section):
    """The 3D UNet that predicts the noise."""

    base_channels: Positive = 32
    """Channels of the first level."""
    multipliers: tuple[Positive, ...] = (1, 2, 3)
    """Channels a level, in units of base_channels."""
    num_res_blocks: Positive = 1
    """Residual blocks a level."""
    attention_levels: tuple[int, ...] = (2,)
    """Levels (0 is the finest) with self-attention."""
    dropout: Fraction = 0.0
    """Dropout inside residual blocks."""
    pooling: Literal["isotropic", "anisotropic"] = "isotropic"
    """`anisotropic` keeps the first axis at full size, as published."""


class DiffusionParams(Section):
    """The forward process."""

    num_train_timesteps: Positive = 1000
    """T."""
    beta_schedule: Literal["linear", "cosine"] = "linear"
    """Schedule of beta."""
    beta_start: float = 1e-4
    """beta at t = 0 (linear)."""
    beta_end: float = 0.02
    """beta at t = T - 1 (linear)."""


class TrainLdmParams(OptimParams):
    """Stage 1: latent diffusion."""

    steps: Positive = 160
    batch_size: Positive = 8
    lr: Annotated[float, Field(gt=0)] = 5e-4
    posterior: Posterior = "sample"
    """Train on posterior draws (fresh each step), on the posterior mean, or, as published, on one
    draw a scan that never changes; both stages."""
    scale: Literal["channel", "scalar"] | float = "channel"
    """Latent standardisation fitted on the training split, or a given scale factor."""
    prediction: Prediction = "epsilon"
    """What the network predicts: the noise, or v = alpha eps - sigma x_0."""
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None
    """Clip of the SNR in the loss's weight; none weighs every timestep alike."""
    diffusion: DiffusionParams = DiffusionParams()
    """Forward process."""
    denoiser: DenoiserParams = DenoiserParams()
    """Network."""


class SemanticEncoderParams(Section):
    """The network that gives y_sem."""

    kind: Literal["latent", "latent-2.5d", "slices"] = "latent"
    """`latent`: 3D convolutions and attention pooling over the latent. `latent-2.5d`: 2D
    convolutions over the latent's axial slices, attention over slices. `slices`: the published
    ConvNeXt over the axial slices of volumes.zarr."""
    channels: tuple[Positive, ...] = (48, 96, 192)
    """Channels a level; each level after the first halves the grid. Four for `slices`."""
    dim: Positive = 256
    """Length of y_sem."""
    num_heads: Positive = 4
    """Heads of the attention pooling."""
    modes: Annotated[int, Field(ge=0)] = 32
    """Principal modes of the training latents that y_sem is told and that tell G where things are;
    0 is as published. Not used by `slices`."""
    depths: tuple[Positive, ...] = (3, 3, 27, 3)
    """Blocks a level of `slices`; (3, 3, 27, 3) is ConvNeXt-Small."""
    num_slices: Positive | None = None
    """Evenly spread slices that `slices` reads; none is all."""
    weights: Path | None = None
    """ImageNet weights of `slices`: a ConvNeXt of torchvision (.pth or .safetensors)."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "SemanticEncoderParams":
        if self.kind == "slices" and len(self.channels) != len(self.depths):
            raise ValueError(f"channels: {len(self.channels)} levels, depths {len(self.depths)}")
        if self.kind != "latent" and self.channels[-1] % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide {self.channels[-1]} channels")
        return self


class TrainLdaeParams(OptimParams):
    """Stage 2: semantic encoder and gradient estimator on the frozen denoiser."""

    steps: Positive = 160
    batch_size: Annotated[int, Field(ge=2)] = 8
    lr: Annotated[float, Field(gt=0)] = 5e-4
    encoder: SemanticEncoderParams = SemanticEncoderParams()
    """Semantic encoder."""
    rough_weight: Annotated[float, Field(ge=0)] = 0.02
    """Weight of the squared error of the rough latent made of y_sem alone (encoder.modes)."""
    shift: Shift = "posterior_mean"
    """Coefficient of G in the training loss: as published, or the one used when sampling."""
    weighting: Literal["pdae", "uniform"] = "pdae"
    """lambda_t: SNR^0.1 / (1 + SNR), or 1."""


class EmbedParams(Section):
    """y_sem of every scan."""

    batch_size: Positive = 64
    """Scans a forward pass."""


class ProbeParams(Section):
    """Probes on y_sem and on what it must beat."""

    classification: dict[str, tuple[str, str]] = Field(
        {"diagnosis": ("CN", "AD"), "sex": ("F", "M")}
    )
    """Label column to (negative, positive) class; other values are left out."""
    regression: tuple[str, ...] = ("age_years",)
    """Label columns to regress."""
    oracle: tuple[str, ...] = (
        "ventricle_mm3",
        "gray_matter_mm3",
        "sulcal_csf_mm3",
        "medial_temporal_mm3",
        "frontal_gray_mm3",
        "brain_mm3",
    )
    """Columns of true volumes (phantoms) for a probe that bounds what y_sem can reach."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the subject-grouped, stratified cross-validation."""
    repeats: Positive = 3
    """How often the cross-validation is repeated with other folds."""
    inner_folds: Annotated[int, Field(ge=2)] = 3
    """Folds of the inner, subject-grouped cross-validation that picks C, alpha or k."""
    heads: tuple[Literal["knn", "mlp"], ...] = ("knn", "mlp")
    """What reads y_sem beside the linear layer: nearest neighbours, a small perceptron."""
    permutations: Annotated[int, Field(ge=0)] = 100
    """Refits on labels permuted over subjects, for the p-value of y_sem; 0 skips it."""
    supervised_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of a semantic encoder trained on the labels themselves, a fold and target each; costs
    minutes, so 0 (the default) leaves this baseline out."""
    supervised_lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of that encoder (Adam)."""
    bootstrap: Positive = 1000
    """Subject-level bootstrap draws for the 95 % intervals."""
    seed: int = 0
    """Seed of folds, permutations, networks and bootstrap."""


class ManipulationParams(Section):
    """Dose-response of a manipulation."""

    direction: str = "diagnosis:AD"
    """A direction that the probe stage saves."""
    scales: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    """How far, in standard deviations of y_sem along the direction."""
    max_subjects: Annotated[int, Field(ge=0)] = 3
    """At most so many subjects, the first scan of each; 0 skips it."""


class GenerationParams(Section):
    """Brains made from noise."""

    count: Annotated[int, Field(ge=0)] = 4
    """Brains of each kind; 0 skips it."""
    medicalnet: Path | None = None
    """MedicalNet ResNet-10 weights (.pth), for MMD and FID in its feature space."""


class VoxelDenoiserParams(DenoiserParams):
    """A denoiser that fits a grid of voxels: narrower, and a level more."""

    base_channels: Positive = 16
    multipliers: tuple[Positive, ...] = (1, 2, 4, 4)
    attention_levels: tuple[int, ...] = (3,)


class VoxelLdmParams(TrainLdmParams):
    """Stage 1 on voxels."""

    batch_size: Positive = 2
    posterior: Literal["sample", "mean"] = "mean"
    denoiser: VoxelDenoiserParams = VoxelDenoiserParams()


class VoxelEncoderParams(SemanticEncoderParams):
    """A semantic encoder that starts from a grid of voxels."""

    channels: tuple[Positive, ...] = (8, 16, 32, 64, 128)


class VoxelLdaeParams(TrainLdaeParams):
    """Stage 2 on voxels."""

    batch_size: Annotated[int, Field(ge=2)] = 2
    encoder: VoxelEncoderParams = VoxelEncoderParams()


class VoxelDaeParams(Section):
    """The voxel-space diffusion autoencoder of `pipeline train-voxel-dae`, a baseline."""

    train_ldm: VoxelLdmParams = VoxelLdmParams()
    """Stage 1: the same code and training on voxels, networks that fit the grid."""
    train_ldae: VoxelLdaeParams = VoxelLdaeParams()
    """Stage 2."""


class EvaluateParams(Section):
    """What subjects never trained on show."""

    split: Literal["test", "val", "train"] = "test"
    """Which subjects."""
    num_inference_steps: Positive = 20
    """Steps of sampler and inversion."""
    sampler: Literal["ddim", "dpm", "dpm_data"] = "dpm"
    """`dpm`: second-order exponential multistep in epsilon on a uniform log-SNR grid; `dpm_data`:
    its data form, DPM-Solver++(2M)."""
    clip_x0: Annotated[float, Field(gt=0)] | None = None
    """Bound of the predicted z_0 in each step; 1 as published, which ruins the inversion."""
    stop_percent: Fraction = 0.0
    """Share of the timesteps, those next to the data, in which G is left out."""
    batch_size: Positive = 4
    """Scans reconstructed at a time."""
    max_scans: Positive = 5
    """At most this many scans (the first in manifest order) are reconstructed."""
    other_steps: tuple[Positive, ...] = (5, 10)
    """Further numbers of steps at which reconstruction is judged."""
    other_steps_scans: Annotated[int, Field(ge=0)] = 2
    """Scans judged at each of them."""
    manipulation: ManipulationParams = ManipulationParams()
    """Dose-response."""
    max_middle_visits: Annotated[int, Field(ge=0)] = 4
    """At most this many held-out middle visits are filled in; 0 skips it."""
    generation: GenerationParams = GenerationParams()
    """Generated brains."""
    voxel_dae: VoxelDaeParams = VoxelDaeParams()
    """A baseline trained by `pipeline train-voxel-dae`; the demo leaves it out."""
    bootstrap: Positive = 1000
    """Subject-level bootstrap draws for the 95 % intervals."""
    seed: int = 0
    """Seed of random x_T and bootstrap."""
    lpips_weights: Path | None = None
    """State dict of lpips.LPIPS(net="squeeze"), for LPIPS in `--what ae`; none leaves it out."""


class Params(Section):
    """All sections; each is the name of a stage and of a command, but for `autoencoder`."""

    cohort: CohortParams = CohortParams()
    preprocess: PreprocessParams = PreprocessParams()
    autoencoder: AutoencoderParams = AutoencoderParams()
    train_ae: TrainAeParams = TrainAeParams()
    encode: EncodeParams = EncodeParams()
    train_ldm: TrainLdmParams = TrainLdmParams()
    train_ldae: TrainLdaeParams = TrainLdaeParams()
    embed: EmbedParams = EmbedParams()
    probe: ProbeParams = ProbeParams()
    evaluate: EvaluateParams = EvaluateParams()
    report: ReportParams = ReportParams()
