"""Probes judged by leaving out the folds of a cross-fitting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import Rows
from pipeline.probes.estimators import Head
from pipeline.probes.targets import Target, make_target
from schemas.results import CrossfitResult

Features = dict[str, NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Folds of scans, and feature sets for each fold that is left out.

    y_sem of a fold's feature sets is by the model that was trained without that fold, in its own
    space; whatever is fitted for a rival is fitted on the other folds.
    """

    fold: NDArray[np.intp]
    """(scan,), from 0."""
    features: Sequence[Features]
    """One a fold, (scan, dim) each."""
    result: CrossfitResult
    judged: NDArray[np.bool_] | None = None
    """(scan,): who is judged; the others are only fitted on. None: everybody is judged."""

    def in_order(self, order: Rows) -> "CrossFit":
        """Return the same with the scans in another order."""
        features = [{name: values[order] for name, values in f.items()} for f in self.features]
        judged = None if self.judged is None else self.judged[order]
        return replace(self, fold=self.fold[order], features=features, judged=judged)

    def with_heads(self, names: Mapping[str, str]) -> "CrossFit":
        """Return the same with feature sets again under further names: new name to old."""
        features = [{**f, **{new: f[old] for new, old in names.items()}} for f in self.features]
        return replace(self, features=features)

    def readers(self, target: Target, table: pd.DataFrame, heads: Mapping[str, Head]) -> "Readers":
        """Return the target for each fold that is left out.

        `table` holds all scans, of which the target has those that carry its label.
        """
        left_out = [
            table.assign(split=np.where(self.fold == k, "test", "train"))
            for k in range(len(self.features))
        ]
        targets = [
            make_target(target.name, target.classes, features, rows, target.params, heads=heads)
            for features, rows in zip(self.features, left_out, strict=True)
        ]
        row_of = {scan: row for row, scan in enumerate(table["scan_id"])}
        rows = [row_of[scan] for scan in target.table["scan_id"]]
        judged = np.ones(len(rows), bool) if self.judged is None else self.judged[rows]
        return Readers(targets, self.fold[rows], judged)


@dataclass(frozen=True, slots=True)
class Readers:
    """One target, as it is read where each fold is left out."""

    targets: list[Target]
    fold: NDArray[np.intp]
    """(scan,), of the scans that carry the label."""
    judged: NDArray[np.bool_]
    """(scan,): who is judged."""

    @property
    def names(self) -> list[str]:
        """Return the feature sets that there are whichever fold is left out."""
        first, *others = (target.features for target in self.targets)
        return [name for name in first if all(name in features for features in others)]

    @property
    def splits(self) -> list[tuple[Rows, Rows]]:
        """Return (fitting rows, held-out rows) of each fold."""
        folds = range(len(self.targets))
        return [
            (np.flatnonzero(self.fold != k), np.flatnonzero((self.fold == k) & self.judged))
            for k in folds
        ]

    def problem(self) -> str | None:
        """Return why the target cannot be judged fold by fold, or None."""
        remedy = "set fewer crossfit.folds"
        if not self.judged.all():
            remedy += ", or crossfit.judge: everybody for people whom the bundled LDAE saw"
        for number, ((_, held_out), target) in enumerate(
            zip(self.splits, self.targets, strict=True)
        ):
            where = f"fold {number + 1} of the cross-fitting"
            if not len(held_out):
                return f"{target.name}: no labelled scan in {where}; {remedy}"
            for label, name in enumerate(target.classes or ()):
                if not (target.truth[held_out] == label).any():
                    return f"{target.name}: no {name} in {where}; {remedy}"
        return None
