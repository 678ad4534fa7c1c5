"""Scans of other subjects."""

from pipeline.cohort.subjects import scans_of_others


def test_y_sem_is_shuffled_between_subjects_never_between_visits():
    visits = [f"sub-{i}" for i in (0, 1, 2)] * 2
    assert [visits[i] for i in scans_of_others(visits)] != visits
    for subjects in (visits, ["a", "a", "a", "b"], list("abcde"), ["a", "b"]):
        others = scans_of_others(subjects)
        assert all(subjects[o] != own for o, own in zip(others, subjects, strict=True))
    assert scans_of_others(["a", "a"]) == []
