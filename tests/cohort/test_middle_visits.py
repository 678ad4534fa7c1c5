"""Visits between two others."""

import numpy as np
import pandas as pd

from pipeline.cohort.middle_visits import middle_visits


def test_middle_visits_have_the_same_subject_on_both_sides():
    table = pd.DataFrame(
        {
            "scan_id": ["a0", "a2", "a1", "b0", "b1", "c0", "c1", "c2"],
            "subject_id": ["a", "a", "a", "b", "b", "c", "c", "c"],
            "months_from_first": [0, 24, 6, 0, 12, 0, np.nan, 12],
        }
    )
    (visit,) = middle_visits(table, set(table["scan_id"]))
    assert (visit.before, visit.scan_id, visit.after) == ("a0", "a1", "a2")
    assert (visit.alpha, visit.gap_months) == (0.25, 24)
    assert not middle_visits(table, {"a0", "a1"})
