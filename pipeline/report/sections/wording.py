"""Numbers and words of the report."""

from collections.abc import Mapping
from typing import Any

Metrics = Mapping[str, Mapping[str, Any]]


def number(value: float, digits: int = 3, sign: str = "") -> str:
    """Return a number with its decimals and a true minus; zero has no sign."""
    text = f"{value:{sign}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")
