"""Who was excluded, by diagnosis, age and site."""

import numpy as np
import pandas as pd
import pytest

from pipeline.report.sections.exclusions import NOT_GIVEN, exclusions

MANIFEST = pd.DataFrame(
    {
        "scan_id": [f"s{i}" for i in range(40)],
        "subject_id": [f"p{i // 2}" for i in range(40)],
        "diagnosis": ["AD"] * 18 + ["CN"] * 20 + [None] * 2,
        "age_years": np.arange(50.0, 90.0),
        "site": ["Lund", "Oslo"] * 20,
    }
)


def quarantine(*scans: str) -> pd.DataFrame:
    return pd.DataFrame({"scan_id": list(scans), "reason": "torn"})


def test_excluded_scans_are_counted_by_group_with_shares_over_subjects():
    found = exclusions(MANIFEST, quarantine("s0", "s1", "s2", "s39", "x"))
    assert found is not None
    assert found["unlabelled"] == 1
    diagnosis, age, site = found["tables"]
    assert [row["name"] for row in diagnosis["rows"]] == ["AD", "CN", NOT_GIVEN]
    assert [row["excluded"] for row in diagnosis["rows"]] == [3, 0, 1]
    sick = diagnosis["rows"][0]
    assert (sick["scans"], sick["subjects"]) == (18, 9)
    assert sick["share"].value == pytest.approx(3 / 18)
    assert sick["share"].interval is not None
    assert diagnosis["rows"][2]["share"].interval is None
    assert [row["name"] for row in age["rows"]] == ["below 63", "63 to below 76", "76 and above"]
    assert [row["scans"] for row in age["rows"]] == [13, 13, 14]
    assert [row["excluded"] for row in site["rows"]] == [2, 2]


def test_without_labels_or_exclusions_there_is_no_table():
    assert exclusions(MANIFEST, None) is None
    assert exclusions(MANIFEST, quarantine()) is None
    assert exclusions(MANIFEST, quarantine("x")) == {"tables": [], "unlabelled": 1}
    bare = MANIFEST[["scan_id", "subject_id"]]
    assert exclusions(bare, quarantine("s0")) == {"tables": [], "unlabelled": 0}


def test_unknown_and_equal_ages_make_no_thirds():
    same = MANIFEST.assign(age_years=70.0, diagnosis="CN", site="Lund")
    assert exclusions(same, quarantine("s0")) == {"tables": [], "unlabelled": 0}
