"""The contract between probe, evaluate and report: `reports/*/metrics.json` as typed results.

Keys are those of the files. What an earlier version did not write yet has a default; what a later
one adds is kept.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from schemas.metrics import Estimate, Prediction

Figures = dict[str, Estimate]
"""Metric to its estimate."""
FiguresOfSets = dict[str, Figures]
"""Feature set, method or pair to its figures."""
FiguresOfTargets = dict[str, FiguresOfSets]
"""Target to the figures of its feature sets."""


Protocol = Literal["test", "cv"]
"""How a probe is judged: on the test split, or by cross-validation."""
PROTOCOLS: tuple[Protocol, ...] = ("test", "cv")


class Result(BaseModel):
    """A part of a metrics file; keys without a value are left out of the file."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    __pydantic_extra__: dict[str, Any] = Field(init=False)  # else Sphinx cannot import the class

    @model_serializer(mode="wrap")
    def _without_empty_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        return {key: value for key, value in document.items() if value is not None}


class Counts(Result):
    """The size of a group."""

    scans: int
    subjects: int


class PermutationTest(Result):
    """How often a probe finds as much in exchanged labels."""

    p: float
    permutations: int
    p_holm: float | None = None
    """p, adjusted by Holm for the number of targets; the primary target has none."""


class ProtocolSizes(Result):
    """The scans of one protocol, by class and in all."""

    fitted_on: dict[str, Counts] | None = None
    folds: int | None = None
    repeats: int | None = None
    judged_on: dict[str, Counts] | None = None
    permutation: PermutationTest | None = None
    """Of y_sem."""
    site_permutation: PermutationTest | None = None
    """Of the site alone, never adjusted: it is a warning, not a finding."""


class TargetResult(Result):
    """What one target is, and the scans that it was read on."""

    kind: Prediction
    negative: str | None = None
    positive: str | None = None
    test: ProtocolSizes | None = None
    cv: ProtocolSizes | None = None
    primary: bool | None = None

    @property
    def classes(self) -> tuple[str, str] | None:
        """Return the negative and the positive class, or None where a number is predicted."""
        if self.negative is None or self.positive is None:
            return None
        return self.negative, self.positive

    def sizes(self, protocol: Protocol) -> ProtocolSizes | None:
        """Return the scans of protocol `test` or `cv`."""
        return self.test if protocol == "test" else self.cv


class WithinSources(Result):
    """Figures of people compared with those of their own source alone."""

    column: str
    """Column of the manifest that names the source."""
    people: dict[str, int] = Field(default_factory=dict)
    """Source to judged people; sources of too few are left aside."""
    figures: FiguresOfSets = Field(default_factory=dict)
    differences: FiguresOfSets = Field(default_factory=dict)
    """y_sem minus each rival, paired."""


class SiteFigures(Result):
    """y_sem at one site."""

    people: int
    within: Figures = Field(default_factory=dict)
    """By the probe of cross-validation, people of this site compared with each other."""
    left_out: Figures = Field(default_factory=dict)
    """By a probe fitted on all other sites."""


class BySite(Result):
    """y_sem at each site; sites of too few people are left aside."""

    column: str
    """Column of the manifest that names the site."""
    sites: dict[str, SiteFigures] = Field(default_factory=dict)
    left_out: Figures = Field(default_factory=dict)
    """All left-out sites together, people ranked within their sites."""


class FoldResult(Result):
    """One fold of a cross-fitting."""

    subjects: int
    """Held out."""
    scans: int
    ldae: str
    """Digest of the model trained on the others."""
    summary_explained: float
    """Share of the reference's summaries of the alignment scans that the fold's explain, turned."""


class CrossfitResult(Result):
    """data/crossfit/crossfit.json: y_sem of every scan by a model that never saw its person."""

    folds: int
    """0 where cross-fitting was left out."""
    subjects: int = 0
    scans: int = 0
    aligned_on: str = ""
    """What the summaries were brought together on, in words."""
    by_fold: list[FoldResult] = Field(default_factory=list)
    std: dict[str, float] = Field(default_factory=dict)
    """Root mean square about the mean, of `modes_…` and of `summary_…`, the two parts of y_sem: by
    the reference of its training scans (`…_reference_train`) and of test scans
    (`…_reference_test`), and out of fold of all scans (`…_out_of_fold`)."""
    agreement: dict[str, float] = Field(default_factory=dict)
    """`modes` and `summary`: share of the reference's y_sem of test scans, which neither it nor the
    fold's model was trained on, that the out-of-fold one explains."""


class SiteReading(Result):
    """How well a scan's site is read, on people left out."""

    accuracy: float
    """Balanced over sites, people alike within each."""
    chance: float
    p: float | None = None
    """How often exchanged sites are read as well."""
    permutations: int = 0
    on_repeats: float | None = None
    """The same of people scanned on several sites alone: nothing but the scanner tells it."""
    sites: int
    people: int
    scans: int


class AgreementSummary(Result):
    """ICC(A,1) of the numbers of y_sem between repeated scans."""

    quartiles: tuple[float, float, float]
    """Over the numbers of y_sem."""
    good: float
    """Share of numbers whose ICC is above 0.75."""
    people: int
    occasions: list[str]
    """Scanners, or the order of the scans of one."""


class ScannerMetrics(Result):
    """reports/scanner/metrics.json: what the scanner does to the numbers of a scan."""

    column: str
    """Column of the manifest that names the site."""
    scans: int
    training_scans: int
    """Of them, those in the training split: the networks know them."""
    people: dict[str, int] = Field(default_factory=dict)
    """Site to its people."""
    repeated_people: int = 0
    """People with scans of one visit on several sites."""
    reading: dict[str, SiteReading] = Field(default_factory=dict)
    """Feature set to how well the site is read from it."""
    shares: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Feature set to part (person, visit, site, person_site, scan) to its share of the variance."""
    agreement: AgreementSummary | None = None
    predictions: dict[str, Estimate] = Field(default_factory=dict)
    """Target to ICC(A,1) of what the probe on y_sem predicts from repeated scans."""
    distances: FiguresOfSets = Field(default_factory=dict)
    """Feature set to `repeat`, `visit` (distance over that to other people) and `recognised`."""
    skipped: dict[str, str] = Field(default_factory=dict)
    """What was left out, and why."""
    remarks: list[str] = Field(default_factory=list)


class AgeBias(Result):
    """How the gap goes with age: Pearson's r and years a year, over people."""

    r: float
    slope: float


class BrainAgeMetrics(Result):
    """reports/brain-age/metrics.json: the age that a brain looks, out of fold."""

    scans: int
    people: int
    training_people: int
    """Of them, those in the training split: the networks saw them, if never their age."""
    crossfit: bool
    """y_sem is by networks that never saw the person."""
    reference: str | None = None
    """`column:value` of the people that ages were learned from; None: everybody."""
    reference_people: int
    folds: int
    error: Estimate
    """Mean absolute error of the uncorrected prediction (years), people of the reference."""
    chance: float
    """The same of the median age of the people fitted on."""
    level: float
    """What the conformal intervals promise."""
    coverage: Estimate | None = None
    """Share of people of the reference whose age lies in their interval; None without intervals."""
    half_width: float | None = None
    """Median half-width of the intervals (years)."""
    before: AgeBias | None = None
    """Gap of the uncorrected prediction; people of the reference."""
    after: AgeBias | None = None
    out_of_range: int
    """Scans of ages that the fits did not see."""
    gap: dict[str, Estimate] = Field(default_factory=dict)
    """Group (of `by`) to the mean of the corrected gap (years)."""
    by: str | None = None
    """Column that groups the gaps."""
    remarks: list[str] = Field(default_factory=list)


class MixedModel(Result):
    """A linear mixed model of one measure: years, group and their product, a person's intercept."""

    people: int
    scans: int
    effects: dict[str, Estimate] = Field(default_factory=dict)
    """`years` (of the reference group) and `years: group`, a year, in units of the measure."""
    reference: str | None = None
    """Group that `years` is of; None where there is one group."""
    person_share: float
    """Share of the variance about the fixed effects that lies between people."""


class ChangeResult(Result):
    """How one measure changes within people."""

    people: int
    """With two visits or more at different times."""
    scans: int
    years: float
    """Median time between a person's first and last visit."""
    slope: dict[str, Estimate] = Field(default_factory=dict)
    """Group (`all` and those of `by`) to the mean least-squares slope within people, a year."""
    change: dict[str, Estimate] = Field(default_factory=dict)
    """The same of (last - first) / years."""
    model: MixedModel | None = None
    retest: Estimate | None = None
    """ICC(A,1) of two scans of a person close in time."""


class LongitudinalMetrics(Result):
    """reports/longitudinal/metrics.json."""

    measures: dict[str, ChangeResult] = Field(default_factory=dict)
    by: str | None = None
    """Column that groups people, as it was at the first visit."""
    retest_months: float
    skipped: dict[str, str] = Field(default_factory=dict)
    remarks: list[str] = Field(default_factory=list)


class RegionEffect(Result):
    """How one region changes, over people."""

    kind: str
    """`atlas`, `tissue` or `ventricles`."""
    ml: float
    """Mean volume before."""
    people: int
    volume_percent: Estimate | None = None
    """Growth of the region's tissue (%), by the deformation; of the ventricles by their rule."""
    volume_ml: Estimate | None = None
    intensity_percent: Estimate | None = None
    """How much brighter the same place became (% of the brain's median)."""
    p: float | None = None
    """Of no change of volume, Student's t over people."""
    p_holm: float | None = None
    """p, adjusted by Holm for the number of regions."""
    p_fdr: float | None = None
    """p, adjusted by Benjamini and Hochberg."""


class RegionMetrics(Result):
    """reports/regions/metrics.json."""

    atlas: str
    compared: str
    """What with what, in words."""
    space: str
    """`mni` or `native`: whose millilitres are told."""
    groups: dict[str, dict[str, RegionEffect]] = Field(default_factory=dict)
    """Scale, place between visits, or group of people, to region to its change."""
    remarks: list[str] = Field(default_factory=list)
    skipped: dict[str, str] = Field(default_factory=dict)


class ProbeMetrics(Result):
    """reports/probe/metrics.json."""

    test: FiguresOfTargets = Field(default_factory=dict)
    """Judged on the subjects of test."""
    cv: FiguresOfTargets = Field(default_factory=dict)
    """Judged by cross-validation over the subjects of val and test."""
    differences: dict[str, FiguresOfTargets] = Field(default_factory=dict)
    """Protocol to target to rival: y_sem minus the rival, paired."""
    added: dict[str, FiguresOfTargets] = Field(default_factory=dict)
    """Protocol to target to `covariates` or `size`: y_sem with them minus them alone, paired."""
    within_sources: dict[str, dict[str, WithinSources]] = Field(default_factory=dict)
    """Protocol to target to the figures within sources, where the manifest names sources."""
    by_site: dict[str, BySite] = Field(default_factory=dict)
    """Target to y_sem's figures at each site, under protocol `cv`."""
    targets: dict[str, TargetResult] = Field(default_factory=dict)
    skipped: dict[str, str] = Field(default_factory=dict)
    """`target`, `target/<feature set>`, `target/cv` and the like that were left out, and why."""
    remarks: dict[str, str] = Field(default_factory=dict)
    """Target to a line on the scans that carry no such label."""
    crossfit: CrossfitResult | None = None
    """Where protocol `cv` leaves out the folds of a cross-fitting: how that was done."""
    applied: str | None = None
    """The directions.json whose probes were applied; nothing was fitted."""

    def figures(self, protocol: Protocol) -> FiguresOfTargets:
        """Return the figures of one protocol."""
        return self.test if protocol == "test" else self.cv


class Throughput(Result):
    """Seconds of whole reconstructions."""

    seconds: dict[str, list[float]]
    faster: dict[str, float]


class IdentificationMetrics(Result):
    """How often a person's other scan is found among those of all judged people."""

    people: int | None = None
    chance: float | None = None
    """Rank-1 rate of a guess."""
    copy_strength: float | None = None
    """How far a copy differs, in units of the autoencoder's augmentation."""
    kinds: dict[str, FiguresOfSets] = Field(default_factory=dict)
    """`visit` or `copy` (what is to be found) to method to `rank_1`, `mean_reciprocal_rank`."""
    skipped: str | None = None


class EvaluateMetrics(Result):
    """reports/evaluate/metrics.json: reconstruction at the top level, other parts by name."""

    split: str | None = None
    scans: int | None = None
    sampler: str | None = None
    num_inference_steps: int | None = None
    reconstruction: FiguresOfSets = Field(default_factory=dict)
    """Method to its figures."""
    inversion: dict[str, float] | None = None
    """Mean, std and kurtosis of the inverted x_T."""
    differences: FiguresOfSets | None = None
    """Pair of methods to the paired difference of each figure."""
    steps: dict[str, FiguresOfSets] | None = None
    """Number of sampler steps to method to figures."""
    throughput: Throughput | None = None
    imported: dict[str, Any] | None = None
    """Models that were imported, and what they were imported from."""
    identification: IdentificationMetrics | None = None
    manipulation: dict[str, Any] | None = None
    true_counterfactuals: dict[str, Any] | None = None
    """Phantoms moved to another severity, against the same head with that severity."""
    interpolation: dict[str, Any] | None = None
    forecast: dict[str, Any] | None = None
    """Held-out last visits, foreseen from those before."""
    generation: dict[str, Any] | None = None
