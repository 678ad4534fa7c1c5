"""Parameters of probes, evaluation and report."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from schemas.diffusion import VoxelDaeParams
from schemas.section import Fraction, Positive, Precision, Section


def _word_of(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("YAML reads yes, no, on and off as true or false; put the label in quotes")  # noqa: TRY004
    return f"{value:g}" if isinstance(value, int | float) else value


Label = Annotated[str, BeforeValidator(_word_of)]
"""A class as the table has it; YAML reads 0 and 1 as numbers."""


class ProbeParams(Section):
    """Probes on y_sem and on what it must beat."""

    @model_validator(mode="after")
    def _targets_are_of_one_kind(self) -> "ProbeParams":
        both = [name for name in self.classification if name in self.regression]
        if both:
            raise ValueError(f"{both[0]} is in classification and in regression; leave one out")
        return self

    classification: dict[str, tuple[Label, Label]] = Field(
        {"diagnosis": ("CN", "AD"), "sex": ("F", "M")}
    )
    """Label column to (negative, positive) class; other values are left out."""
    regression: tuple[str, ...] = ("age_years",)
    """Label columns to regress."""
    primary: str = "diagnosis"
    """The target that the study is about, judged by ROC-AUC or MAE: its p-value stands as it is,
    those of the others are adjusted by Holm's rule. If it is none of the targets: the first."""
    rivals: dict[str, Path] = Field({})
    """Name of a rival of y_sem to a CSV of its features: scan_id and columns of numbers."""
    covariates: tuple[str, ...] = ()
    """Columns of the manifest, numbers or words, that y_sem has to add to: read alone and beside
    y_sem, for every target but themselves."""
    residualise: bool = False
    """Also read y_sem after the covariates were regressed out of it, within each fold."""
    harmonise: Literal["none", "fortin", "gam"] = "none"
    """Also read y_sem after ComBat took the site out, fitted within each fold (extra `harmonise`);
    `gam`: age may bend."""
    harmonise_keep: tuple[str, ...] = ("age_years", "sex")
    """Columns of numbers, or sex, whose effects ComBat protects; never the target itself."""
    harmonise_unseen: Literal["refuse", "pool"] = "refuse"
    """Where a fold has a site of fewer than two people to fit on: `refuse` leaves y_sem harmonised
    out, `pool` leaves the scans of such a site as they are. A line tells either."""
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
    """Draws of subjects for the 95 % intervals of PR-AUC, F1, MCC, R² and calibration error; other
    figures have formulas."""
    seed: int = 0
    """Seed of folds, permutations, networks and bootstrap."""


class ManipulationParams(Section):
    """Dose-response of a manipulation."""

    direction: str = "diagnosis:AD"
    """A direction that the probe stage saves."""
    scales: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    """How far, in `unit`."""
    unit: Literal["spread", "published"] = "spread"
    """`spread`: standard deviations of y_sem along the direction, fitting scans; `published`: the s
    of s·√dim·w/‖w‖, as `manipulate --published-scale`, which needs no fitting scans."""
    along: Literal["pattern", "weight"] = "pattern"
    """What moves: `pattern`, all numbers of y_sem as they go together in the probe's fitting scans;
    `weight`, the probe's weight alone, as published (always with the unit `published`)."""
    max_subjects: Annotated[int, Field(ge=0)] = 3
    """At most so many subjects, the first scan of each; 0 skips it."""
    true_changes: tuple[float, ...] = (0.3, 0.6)
    """Phantoms alone: changes of severity (0.1 in healthy people, 1 in disease) that are asked for
    and compared with the same head at that severity; none leaves it out."""
    true_regions: bool = False
    """Compare the largest by region too: a deformation, some seconds, a person and method."""

    @property
    def goes_along_weight(self) -> bool:
        """Return whether codes move along the probe's weight."""
        return self.along == "weight" or self.unit == "published"


class ForecastParams(Section):
    """Forecasts of held-out last visits; left out where nobody has two dated visits."""

    max_people: Annotated[int, Field(ge=0)] = 4
    """At most so many people, the last visit of each from those before; 0 skips it."""
    draws: Annotated[int, Field(ge=4, le=1000)] = 8
    """Draws of each way that tells an interval; they come in pairs about the mean."""


class GenerationParams(Section):
    """Brains made from noise."""

    count: Annotated[int, Field(ge=0)] = 4
    """Brains of each kind; 0 skips it."""
    medicalnet: Path | None = None
    """MedicalNet ResNet-10 weights (.pth), for MMD and FID in its feature space."""


class EvaluateParams(Section):
    """What subjects never trained on show."""

    split: Literal["test", "val", "train"] = "test"
    """Which subjects."""
    num_inference_steps: Positive = 10
    """Steps of sampler and inversion. On four phantoms `dpm` with 10
    gives the SSIM of 40 to five digits, and x_T's spread within 4 %; with 20 within 1 %."""
    sampler: Literal["ddim", "dpm", "dpm_data", "dpm3"] = "dpm"
    """`dpm`: second-order exponential multistep in epsilon on a uniform log-SNR grid; `dpm_data`:
    its data form, DPM-Solver++(2M); `dpm3`: third order, with 12 steps about as near to the exact
    flow each way as `dpm` with 20, but there and back its errors do not cancel as those do."""
    precision: Precision | Literal["auto"] = "auto"
    """Arithmetic of the networks of diffusion in sampling and inversion. `auto`: bf16 where the
    device computes it natively, about twice as fast, else fp32. bf16 moves x_T and what is sampled
    by less than a sixth of the sampler's own error; `fp32` for figures that no processor moves."""
    clip_x0: Annotated[float, Field(gt=0)] | None = None
    """Bound of the predicted z_0 in each step; 1 as published, which ruins the inversion."""
    stop_percent: Fraction = 0.0
    """Share of the timesteps, those next to the data, in which G is left out."""
    batch_size: Positive = 4
    """Scans reconstructed at a time."""
    any_contrast: bool = False
    """Use models on scans of another contrast than they were trained on, in applications too."""
    max_scans: Positive = 8
    """At most this many scans (the first of every subject, then second ones) are reconstructed."""
    draws: Annotated[int, Field(ge=0)] = 4
    """Draws of random x_T whose decoded brains are averaged: what y_sem tells, without what the
    noise adds. All scans have the same. They come in pairs, x_T and -x_T, so even numbers are best.
    0 leaves those rows out."""
    other_steps: tuple[Positive, ...] = (5, 20)
    """Further numbers of steps at which reconstruction is judged."""
    other_steps_scans: Annotated[int, Field(ge=0)] = 2
    """Scans judged at each of them."""
    manipulation: ManipulationParams = ManipulationParams()
    """Dose-response."""
    max_middle_visits: Annotated[int, Field(ge=0)] = 4
    """At most this many held-out middle visits are filled in; 0 skips it."""
    forecast: ForecastParams = ForecastParams()
    """Last visits foreseen from those before."""
    generation: GenerationParams = GenerationParams()
    """Generated brains."""
    voxel_dae: VoxelDaeParams = VoxelDaeParams()
    """A baseline trained by `pipeline train-voxel-dae`; the demo leaves it out."""
    bootstrap: Positive = 1000
    """Without effect: intervals of the evaluation have formulas. Kept for older params.yaml."""
    seed: int = 0
    """Seed of random x_T."""
    lpips_weights: Path | None = None
    """State dict of lpips.LPIPS(net="squeeze"), for LPIPS; none leaves it out."""


class ReportParams(Section):
    """The HTML report."""

    title: str = "Latent diffusion autoencoder on T1w brain MRI"
    """Heading."""
    max_examples: Positive = 3
    """Scans shown of each kind of strip."""
    mosaic_scans: Positive = 16
    """Scans in the mosaic of quality control."""
    viewer_slices: Annotated[int, Field(ge=4, le=48)] = 28
    """Slices of each plane in the viewer."""
    viewer_pixels: Annotated[int, Field(ge=32, le=260)] = 190
    """Width of one panel of the viewer (pixels)."""
    picture_quality: Annotated[int, Field(ge=1, le=100)] = 72
    """WebP quality of brains inside the page; the files beside it are lossless."""
