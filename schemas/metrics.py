"""Metric files: fixed keys, units in the names, values with intervals."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

FEWEST_SUBJECTS = 5
"""Fewer subjects (of the rarer class, where classes are ranked) have a figure without interval."""
FEWEST_REFITTED = 10
"""Fewer subjects of a class (half of all, where there are none) have no interval of a figure of
cross-validation, nor of a difference of two ROC-AUCs: at 5, it would hold the truth in 88 %."""
FEWEST_TO_BEAT_CHANCE = 6
"""Fewer subjects of a class are never called better than chance: with 5, the exact lower limit of
a ROC-AUC of 1 is 0.48."""

Prediction = Literal["classification", "regression"]
"""What a probe predicts: one of two classes, or a number."""

IntervalMethod = Literal[
    "none", "few", "hall", "score", "exact", "share", "median", "t", "f", "wald", "bootstrap"
]
"""What an interval was made by; docs/evaluation.md tells each, with its measured coverage. `few`:
a rank of so few subjects of a class that the figure itself is not printed."""


class Estimate(BaseModel):
    """A figure with its 95 % interval over subjects, where it has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float | None = None
    high: float | None = None
    subjects: int
    """Subjects behind the figure."""
    interval_method: IntervalMethod = "bootstrap"
    """Files of earlier versions do not name it: theirs are percentile bootstraps."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the ends of the interval, or None where the figure has none to show.

        An interval of no width is none: it tells that resampling could not vary the figure.
        """
        if self.low is None or self.high is None:
            return None
        if self.subjects < FEWEST_SUBJECTS or self.low == self.high:
            return None
        return self.low, self.high

    def excludes(self, value: float) -> bool:
        """Return whether there is an interval and the value lies outside it."""
        return self.interval is not None and not self.interval[0] <= value <= self.interval[1]

    def __str__(self) -> str:
        if self.interval_method == "few":
            return "too few subjects"
        if self.interval is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"


MIN_SUBJECTS = 2
"""Fewest subjects of each class (classification), or in all (regression), to fit on."""
