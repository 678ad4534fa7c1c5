"""Quality control expects what is usual for a contrast; numbers are those of shared scans."""

import pytest

from pipeline.imaging.qc import assess_qc, is_other_contrast, is_poor
from schemas.params import PreprocessParams, QcParams

SOUND = {"brain_ml": 1400.0, "dice": 0.96, "coverage": 1.0, "scaling": 1.4, "turned": 10.0}
MEASURED = {
    "T1w": {"ncc": 0.55, "white_grey": 0.8, "grey_fluid": 1.6},
    "FLAIR": {"ncc": 0.383, "white_grey": -0.629, "grey_fluid": 2.465},
    "T2w": {"ncc": -0.213, "white_grey": -0.428, "grey_fluid": -2.534},
}
"""FLAIR: sub-msl04_ses-01. T2w: sub-msl01_ses-01."""


@pytest.mark.parametrize("scan", MEASURED)
@pytest.mark.parametrize("contrast", MEASURED)
def test_a_scan_passes_as_what_it_is_and_fails_as_anything_else(scan, contrast):
    numbers = SOUND | MEASURED[scan]
    verdict = assess_qc(numbers, (), QcParams(), rigid=False, contrast=contrast)
    assert verdict.status == ("pass" if scan == contrast else "fail"), verdict
    assert is_other_contrast(numbers, QcParams(), contrast) is (scan != contrast)
    assert not (is_poor(numbers, QcParams(), contrast) and scan == contrast)


def test_contrasts_without_a_rule_are_judged_by_mask_and_pose():
    numbers = SOUND | {"ncc": 0.0, "white_grey": 0.0, "grey_fluid": 0.0}
    assert assess_qc(numbers, (), QcParams(), rigid=False, contrast="PDw").status == "pass"
    verdict = assess_qc(numbers | {"dice": 0.5}, (), QcParams(), rigid=False, contrast="PDw")
    assert verdict.status == "fail"


def test_the_contrast_is_part_of_a_volume_but_t1w_keeps_its_fingerprint():
    plain, t1w = PreprocessParams(), PreprocessParams(contrast="T1w")
    flair = PreprocessParams(contrast="FLAIR")
    assert plain.content() == t1w.content()
    assert "contrast" not in plain.recorded()
    assert flair.content()["contrast"] == flair.recorded()["contrast"] == "FLAIR"
