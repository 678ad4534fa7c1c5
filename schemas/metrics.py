"""The shape of metric files: fixed keys, units in the names, intervals beside the values."""

from pydantic import BaseModel, ConfigDict

FEWEST_SUBJECTS = 5
"""Fewer have no interval that is shown: to resample so few says nothing of people not seen."""


class Estimate(BaseModel):
    """A figure with its 95 % subject-bootstrap interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float
    subjects: int
    """Subjects behind the figure."""

    def __str__(self) -> str:
        if self.subjects < FEWEST_SUBJECTS:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
