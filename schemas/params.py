"""Every parameter of the pipeline: one section a stage, each field with its unit and default.

The defaults are the `demo` preset. Unknown keys are refused.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.autoencoder import AutoencoderParams, TrainAeParams
from schemas.diffusion import TrainLdaeParams, TrainLdmParams
from schemas.evaluation import EvaluateParams, ProbeParams, ReportParams
from schemas.grid import GridParams
from schemas.section import Fraction, Positive, Precision, Section


class SplitParams(Section):
    """Subject-level split; the test share is what train and val leave."""

    train: Fraction = 0.6
    """Share of subjects in the training split."""
    val: Fraction = 0.15
    """Share of subjects in the validation split (early stopping, model selection)."""
    seed: int = 1
    """Seed of the hash that ranks the subjects (within a diagnosis, so that each is spread evenly).

    Shares are exact to one subject. Row order and number of scans change nothing; adding subjects
    can move a few of those that lie at the cuts, so freeze the manifest of a finished study.
    """

    seen: Literal["anywhere", "train"] = "anywhere"
    """Where people go whom the bundled networks were trained on (known by their files). `train`
    keeps them out of judgement: val and test are drawn from the others, in shares of all as far as
    these suffice."""

    @model_validator(mode="after")
    def _leaves_test(self) -> "SplitParams":
        if self.train + self.val > 1:
            raise ValueError("train + val must be at most 1")
        return self


class PhantomParams(Section):
    """The embedded demonstration cohort. Its numbers prove the pipeline, not a clinical claim."""

    subjects: Positive = 30
    """Number of subjects."""
    zooms: Annotated[float, Field(ge=1, le=4)] = 2.0
    """Voxel size of the generated heads (mm)."""
    multi_visit_share: Fraction = 0.2
    """Share of subjects with follow-up visits."""
    seed: int = 0
    """Cohort seed; each subject's own seed is derived from it and the subject id."""
    masks: bool = False
    """Write the true brain masks too (derivatives/truth)."""
    overlap: bool = False
    """Let the severity of disease overlap: true atrophy tells AD from CN with a ROC-AUC of 0.85, as
    in clinical cohorts, instead of 1."""
    sex_overlap: bool = False
    """Let size and shape of heads overlap between the sexes: head size tells sex with a ROC-AUC of
    about 0.79 instead of 0.95, size and shape together of about 0.88 instead of 1."""
    focal: Fraction = 0.0
    """Darkening (share of the signal) at the centre of a spot, 2 cm wide, of the left parietal lobe
    that half of the people have, apart from all else about them: column `focal` (yes, no). A local
    effect that the leading global modes do not hold; 0: nobody."""
    scanners: Annotated[int, Field(ge=0)] = 0
    """Scanners that the cohort shares, each with its own contrast, noise, receive field, blur and
    gradient scale: column `site`. 0: every person has one of their own, which differs little."""
    travelling: Annotated[int, Field(ge=0)] = 0
    """So many people, the first, have their first visit on every scanner, as repeats at month 0."""

    @model_validator(mode="after")
    def _travellers_have_somewhere_to_go(self) -> "PhantomParams":
        if self.travelling and self.scanners < 2:
            raise ValueError(f"travelling: {self.travelling} people; set scanners to 2 or more")
        return self


Word = Annotated[str, Field(pattern="^[A-Za-z0-9]+$")]
BidsValue = str | int | list[str | int] | None


class CohortParams(Section):
    """Which scans, and how they are split."""

    source: Literal["phantom", "bids", "folder", "table", "dicom"] = "phantom"
    """Kind of input. `folder` takes every image below the input folder, `dicom` series folders."""
    input: Path | None = None
    """BIDS root, folder, or CSV/TSV/Parquet table. Not used by `phantom`."""
    columns: dict[str, str] = Field({})
    """Your columns by what they are, {age: AGE}: age, sex, diagnosis, months, split, site (scanner,
    field strength, any words); of a table of scans also path, subject, session, scan; session of
    participants.tsv too. Any other name becomes a label."""
    leave_out: tuple[str, ...] = ()
    """Columns of your tables that do not go into the manifest. Columns whose names promise a
    person's name, birth, address, telephone, e-mail or record number stay out anyway, unless
    `columns` names them."""
    suffix: tuple[Word, ...] = ("T1w",)
    """BIDS suffixes to take, the first that a session has: [T1w, UNIT1] takes MP2RAGE's UNIT1 where
    there is no T1w. They name the contrast of the study, one: [FLAIR]. Of a table, the rows whose
    column `contrast` (or `suffix`) names it."""
    prefer: tuple[str, ...] = ()
    """Words in names of BIDS files or DICOM series that come first where a session has several:
    [acq-mprage, run-2]."""
    bids_filter: dict[str, BidsValue] = Field({})
    """What a BIDS image must have, as under `t1w` of fMRIPrep's filter file: {acquisition: mprage,
    run: [1, 2], ceagent: null}. null: must not have it."""
    phantom: PhantomParams = PhantomParams()
    """The phantom cohort, used when source is `phantom`."""
    split: SplitParams = SplitParams()
    """Subject-level split."""

    @field_validator("suffix", "prefer", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


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
    ncc_warn_atrophy: float = 0.25
    """The same as `ncc_warn` where the masks overlap by `dice_atrophy` or more: large ventricles
    lower the correlation of elders while mask and pose are right."""
    dice_atrophy: float = 0.95
    """Dice from which on a low correlation is laid to atrophy."""
    white_grey_warn: float = 0.22
    """By how many standard deviations of the brain white matter is brighter than grey; below, the
    contrast is suspicious."""
    white_grey_fail: float = 0.15
    """The same, below which the scan is no T1w and fails."""
    grey_fluid_warn: float = 0.40
    """By how many standard deviations of the brain grey matter is brighter than fluid; below, the
    contrast is suspicious."""
    grey_fluid_fail: float = 0.0
    """The same, below which the scan is no T1w and fails."""
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


Contrast = Literal["T1w", "T2w", "FLAIR", "PDw", "T2starw", "other"]
"""Contrast of the images of a study, as BIDS suffixes name it."""


class PreprocessParams(Section):
    """From a raw head to a volume on the MNI grid."""

    contrast: Contrast | None = None
    """Contrast of the images, one a study; quality control expects what is usual for it. Default:
    that of the manifest (column `contrast`), else T1w."""
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
    intensity: Literal["percentiles", "landmarks", "minmax"] = "percentiles"
    """What maps to 0 and 1: percentiles of the brain; `landmarks` then moves each scan's grey and
    white matter to the same two levels, so that contrasts of scanners differ less; `minmax`, as
    published weights expect, the lowest and highest intensity of the stripped volume, air (0)
    included, where one hot voxel darkens all."""
    intensity_percentiles: tuple[float, float] = (0.5, 99.5)
    """Percentiles inside the brain that map to 0 and 1; beyond is clipped."""
    max_bytes: Positive = 2_000_000_000
    """Largest decompressed image (bytes) that is read at all."""
    qc: QcParams = QcParams()
    """Quality control."""

    def content(self) -> dict[str, Any]:
        """Return the parameters that decide a volume's voxels: all but the QC thresholds.

        Parameters of the other intensity scale are left out, so that stores from before there was
        a choice keep their fingerprints.
        """
        unused = {"percentiles": {"intensity"}, "minmax": {"intensity_percentiles"}}
        left_out = {"qc", "max_bytes"} | unused.get(self.intensity, set())
        left_out |= {"contrast"} if self.contrast in (None, "T1w") else set()
        return self.model_dump(mode="json", exclude=left_out)

    def recorded(self) -> dict[str, Any]:
        """Return all parameters as stores record them; intensity and contrast if not default."""
        usual = {"intensity"} if self.intensity == "percentiles" else set()
        usual |= {"contrast"} if self.contrast in (None, "T1w") else set()
        return self.model_dump(mode="json", exclude=usual)


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
    any_contrast: bool = False
    """Encode images of another contrast than the autoencoder was trained on."""


class EmbedParams(Section):
    """y_sem of every scan."""

    batch_size: Positive = 64
    """Scans a forward pass."""
    any_contrast: bool = False
    """Embed latents of another contrast than the LDAE was trained on."""


class CrossfitParams(Section):
    """y_sem of every scan by a model that never saw its person."""

    folds: Annotated[int, Field(ge=0)] = 0
    """Folds of subjects; both stages of the LDAE are trained without each of them in turn, so that
    everybody is judged and not the test split alone. Costs as many trainings; 0 leaves it out."""
    judge: Literal["unseen", "everybody"] = "unseen"
    """Whom the probes judge fold by fold. `unseen`: not the people whom the bundled LDAE was
    trained on, where folds start from it or count its modes; they help the fits alone."""

    @field_validator("folds")
    @classmethod
    def _one_leaves_nobody(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("expected 0 (no cross-fitting) or at least 2 folds")
        return folds


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
    crossfit: CrossfitParams = CrossfitParams()
    probe: ProbeParams = ProbeParams()
    evaluate: EvaluateParams = EvaluateParams()
    report: ReportParams = ReportParams()
