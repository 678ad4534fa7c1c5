"""Where the real scans are, for the tests that need them."""

import os
from pathlib import Path

import pytest

from tests.support.paths import ROOT

DATA = ROOT.parent / "shared" / "data"


def real_t1w() -> Path:
    """Return the folder of real scans, or skip the test."""
    return _found("REAL_T1W", "real_t1w")


def real_more() -> Path:
    """Return the folder of further people, elders with reference volumes, or skip the test."""
    return _found("REAL_MORE", "real_more")


def _found(variable: str, folder: str) -> Path:
    root = Path(os.environ.get(variable, DATA / folder))
    if not (root / "participants.tsv").is_file():
        pytest.skip(f"no real scans: set {variable} to their BIDS folder")
    return root
