"""Results of probes: figures, predictions, directions and fits of every target."""

from dataclasses import dataclass, field

import pandas as pd

from pipeline.models.direction import Direction
from pipeline.probes.estimators import Probe
from pipeline.probes.targets import Target
from schemas.results import (
    BySite,
    CrossfitResult,
    FiguresOfSets,
    FiguresOfTargets,
    ProbeMetrics,
    Protocol,
    ProtocolSizes,
    TargetResult,
    WithinSources,
)

PREDICTION_COLUMNS = (
    "scan_id",
    "subject_id",
    "target",
    "feature_set",
    "protocol",
    "repeat",
    "split",
    "truth",
    "score",
)


@dataclass(slots=True, kw_only=True)
class ProtocolResult:
    """Figures, sizes and predictions of one target under one protocol."""

    skipped: dict[str, str] = field(default_factory=dict)
    """`target`, `target/cv` and the like not judged, and why."""
    sizes: ProtocolSizes | None = None
    """Scans fitted and judged on; None where nothing was judged."""
    figures: FiguresOfSets = field(default_factory=dict)
    differences: FiguresOfSets | None = None
    """y_sem minus each rival; None where y_sem is not among the feature sets."""
    added: FiguresOfSets = field(default_factory=dict)
    """y_sem with a feature set minus that set alone."""
    within: WithinSources | None = None
    """The same within sources, where there are several."""
    by_site: BySite | None = None
    """y_sem at each site, where there are several."""
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(slots=True)
class ProbeResults:
    """Figures, predictions, directions and fits of all targets."""

    metrics: FiguresOfTargets = field(default_factory=dict)
    """Protocol `test`: {target: {feature_set: {metric: Estimate}}}."""
    cv_metrics: FiguresOfTargets = field(default_factory=dict)
    """Protocol `cv`, same shape."""
    targets: dict[str, TargetResult] = field(default_factory=dict)
    """Target to its kind, its classes, and scans and subjects a protocol."""
    differences: dict[str, FiguresOfTargets] = field(default_factory=dict)
    """Protocol to metrics of the same shape: y_sem minus each rival, paired."""
    added: dict[str, FiguresOfTargets] = field(default_factory=dict)
    """Protocol to metrics of the same shape: y_sem with a feature set minus it alone, paired."""
    within_sources: dict[str, dict[str, WithinSources]] = field(default_factory=dict)
    """Protocol to target to figures within sources."""
    by_site: dict[str, BySite] = field(default_factory=dict)
    """Target to y_sem's figures at each site, of protocol `cv`."""
    skipped: dict[str, str] = field(default_factory=dict)
    """`target`, `target/<feature set>`, `target/cv` and the like not judged, and why."""
    predictions: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=list(PREDICTION_COLUMNS))
    )
    """One row a scan, target, feature set and protocol: PREDICTION_COLUMNS."""
    directions: dict[str, Direction] = field(default_factory=dict)
    """One a target, from the `test` protocol's probe on y_sem."""
    remarks: dict[str, str] = field(default_factory=dict)
    """Target to a line on the scans that carry no such label."""
    crossfit: CrossfitResult | None = None
    """Where `cv` leaves out the folds of a cross-fitting."""
    fits: dict[str, dict[str, Probe]] = field(default_factory=dict)
    """Protocol `test`: every fitted number. Depends on the rows of train and val alone."""

    def document(self) -> ProbeMetrics:
        """Return all but predictions, directions and fits, as metrics.json has it."""
        return ProbeMetrics(
            test=self.metrics,
            cv=self.cv_metrics,
            differences=self.differences,
            added=self.added,
            within_sources=self.within_sources,
            by_site=self.by_site,
            targets=self.targets,
            skipped=self.skipped,
            remarks=self.remarks,
            crossfit=self.crossfit,
        )

    def add(self, target: Target, protocol: Protocol, result: ProtocolResult) -> None:
        """Add the result of one target under one protocol."""
        name = target.name
        self.skipped |= result.skipped
        if result.sizes is None:
            return
        if name not in self.targets:
            negative, positive = target.classes or (None, None)
            self.targets[name] = TargetResult(
                kind=target.kind, negative=negative, positive=positive
            )
        if protocol == "test":
            self.targets[name].test, self.metrics[name] = result.sizes, result.figures
        else:
            self.targets[name].cv, self.cv_metrics[name] = result.sizes, result.figures
        if result.differences is not None:
            of_protocol = self.differences.setdefault(protocol, {})
            of_protocol |= {name: result.differences} if result.differences else {}
        if result.added:
            self.added.setdefault(protocol, {})[name] = result.added
        if result.within is not None:
            self.within_sources.setdefault(protocol, {})[name] = result.within
        if result.by_site is not None:
            self.by_site[name] = result.by_site
        parts = [self.predictions] if len(self.predictions) else []
        self.predictions = pd.concat([*parts, result.predictions], ignore_index=True)
