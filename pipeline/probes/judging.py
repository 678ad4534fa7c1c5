"""Scores of judged scans turned into figures, paired differences, figures by site, predictions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import Rows
from pipeline.probes.confounds.left_out_sites import figures_by_site
from pipeline.probes.confounds.sites import SITE
from pipeline.probes.confounds.within_sources import Judged, within_sources
from pipeline.probes.probe_intervals import paired_figures, probe_differences, probe_estimates
from pipeline.probes.results import PREDICTION_COLUMNS, ProtocolResult
from pipeline.probes.targets import DIRECTION_FEATURES, Target
from schemas.results import FiguresOfSets, Protocol, ProtocolSizes, WithinSources

Floats = NDArray[np.float64]

REFERENCES = ("chance", "oracle")
"""What gains and closed gaps of the other feature sets are measured against."""


@dataclass(frozen=True, slots=True)
class JudgedScores:
    """The scores of one target's feature sets on scans that no probe was fitted on.

    A rival that lacks scans has NaN there: its figures and its difference from y_sem are those of
    the scans it has.
    """

    target: Target
    rows: Rows
    scores: dict[str, Floats]
    """Feature set to (repeat, scan); figures are means over repeats."""
    fold: Rows | None = None
    """(repeat, scan), of cross-validation."""
    reader: Target | None = None
    """The target as the folds of cross-validation read it, with the same rows."""

    def result(self, protocol: Protocol, sizes: ProtocolSizes) -> ProtocolResult:
        """Return all but the permutation tests."""
        result = ProtocolResult(
            sizes=sizes,
            figures=self._figures(),
            differences=self._differences(),
            added=self._added(),
            within=self._within(),
            predictions=self._predictions(protocol),
        )
        if self.reader is not None and DIRECTION_FEATURES in self.scores:
            judged = self._judged([DIRECTION_FEATURES, "chance"])
            result.by_site, lines = figures_by_site(self.reader, self.rows, judged)
            result.skipped |= lines
        return result

    @property
    def complete(self) -> list[str]:
        """Return the feature sets with a score for every scan."""
        return [name for name, values in self.scores.items() if np.isfinite(values).all()]

    @property
    def _can_be_ranked(self) -> bool:
        return len(np.unique(self.target.truth[self.rows])) > 1

    def _common(self) -> Iterator[tuple[str, "JudgedScores"]]:
        """Yield each rival that lacks scans, with y_sem and references on those it has."""
        for name in self.scores.keys() - set(self.complete):
            there = np.isfinite(self.scores[name]).all(axis=0)
            kept = [n for n in (DIRECTION_FEATURES, *REFERENCES) if n in self.complete]
            scores = {n: self.scores[n][:, there] for n in (*kept, name)}
            fold = None if self.fold is None else self.fold[:, there]
            if there.any():
                yield name, JudgedScores(self.target, self.rows[there], scores, fold)

    def _figures(self) -> FiguresOfSets:
        """Return {feature set: {metric: Estimate}}."""
        params, subjects = self.target.params, self.target.subjects[self.rows]
        found = probe_estimates(
            self.target.truth[self.rows],
            {name: self.scores[name] for name in self.complete},
            subjects,
            self.target.kind,
            fold=self.fold,
            draws=params.bootstrap,
            seed=params.seed,
        )
        found |= {name: common._figures()[name] for name, common in self._common()}
        return {name: found[name] for name in self.scores if name in found}

    def _differences(self) -> FiguresOfSets | None:
        """Return {rival: {metric: Estimate}}, paired; None where y_sem cannot be compared."""
        if DIRECTION_FEATURES not in self.scores or not self._can_be_ranked:
            return None
        found = probe_differences(
            self.target.truth[self.rows],
            {name: self.scores[name] for name in self.complete},
            self.target.subjects[self.rows],
            self.target.kind,
            fold=self.fold,
            first=DIRECTION_FEATURES,
        )
        for name, common in self._common():
            found |= {name: (common._differences() or {}).get(name, {})}
        return {name: found[name] for name in self.scores if found.get(name)}

    def _added(self) -> FiguresOfSets:
        """Return {feature set: {metric: Estimate}}: y_sem with the set minus the set, paired."""
        truth, subjects = self.target.truth[self.rows], self.target.subjects[self.rows]
        both = {name: f"{DIRECTION_FEATURES} + {name}" for name in self.scores}
        return {
            name: paired_figures(
                truth, self.scores[pair], self.scores[name], subjects, self.target.kind, self.fold
            )
            for name, pair in both.items()
            if pair in self.scores and self._can_be_ranked
        }

    def _within(self) -> WithinSources | None:
        """Return the same within sources, or None where there are not several."""
        told = [name for name in self.complete if name != SITE]  # 0.5 within a site
        table = self.target.table.iloc[self.rows]
        judged = self._judged(told)
        return within_sources(table, judged, self.target.kind, first=DIRECTION_FEATURES)

    def _judged(self, names: list[str]) -> Judged:
        scores = {name: self.scores[name] for name in names if name in self.scores}
        truth, subjects = self.target.truth[self.rows], self.target.subjects[self.rows]
        return Judged(truth, scores, subjects, self.fold)

    def _predictions(self, protocol: str) -> pd.DataFrame:
        scans = self.target.table.iloc[self.rows][["scan_id", "subject_id", "split"]]
        every = pd.concat(
            [
                scans.assign(
                    target=self.target.name,
                    feature_set=name,
                    protocol=protocol,
                    repeat=repeat,
                    truth=self.target.truth[self.rows],
                    score=score,
                )
                for name, repeats in self.scores.items()
                for repeat, score in enumerate(repeats)
            ]
        )[list(PREDICTION_COLUMNS)]
        return every[every["score"].notna()]
