"""What is judged, and how it is shown."""

import numpy as np
import pandas as pd

from pipeline.study.study import levels, of_many_subjects


def test_few_scans_are_of_many_subjects():
    scans = pd.DataFrame(
        {"subject_id": list("aaabbc"), "scan_id": ["a1", "a2", "a3", "b1", "b2", "c1"]}
    )
    chosen = [of_many_subjects(scans, n)["scan_id"].tolist() for n in (2, 4, 9)]
    assert chosen == [["a1", "b1"], ["a1", "b1", "c1", "a2"], ["a1", "b1", "c1", "a2", "b2", "a3"]]


def test_a_volume_is_shown_in_grey_levels():
    assert levels(np.array([-0.1, 0.0, 0.5, 1.2])).tolist() == [0, 0, 128, 255]
