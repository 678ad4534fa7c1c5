"""Where the real scans are, for the tests that need them."""

import os
from pathlib import Path

import pytest


def real_t1w() -> Path:
    """Return the folder of real scans, or skip the test."""
    default = Path(__file__).parents[2] / "shared" / "data" / "real_t1w"
    root = Path(os.environ.get("REAL_T1W", default))
    if not (root / "participants.tsv").is_file():
        pytest.skip("no real scans: set REAL_T1W to their BIDS folder")
    return root
