"""Broken files each give one clear line; none costs memory or stops a run."""

import resource
from pathlib import Path

import numpy as np
import pytest

from pipeline.imaging.header import check_field_of_view
from pipeline.imaging.read import read_scan
from schemas.errors import ScanError
from tests.support.broken_files import FAULTS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_gives_one_clear_line(name: str, tmp_path: Path) -> None:
    breaker, expected = FAULTS[name]
    path = breaker(tmp_path)

    def read() -> None:
        scan = read_scan(path, max_bytes=100_000_000)
        check_field_of_view(scan.data.shape, scan.affine)

    with pytest.raises(ScanError, match=expected) as caught:
        read()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_forty_kinds_are_covered() -> None:
    assert len(FAULTS) >= 40


@pytest.mark.parametrize("name", ["terabytes", "terabytes in gzip", "gzip bomb", "offset NaN"])
def test_refusal_costs_no_memory(name: str, tmp_path: Path) -> None:
    path = FAULTS[name][0](tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ScanError):
        read_scan(path, max_bytes=2_000_000_000)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 100


def test_field_of_view_of_a_finger_is_refused() -> None:
    with pytest.raises(ScanError, match="field of view"):
        check_field_of_view((25, 30, 27), np.diag([1.0, 1.0, 1.0, 1.0]))
