"""The split of any cohort: every subject once, shares exact, whatever the order."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cohort.split import split_subjects
from schemas.params import SplitParams

subjects = st.dictionaries(
    st.text("abc0123456789", min_size=1, max_size=6), st.sampled_from(["CN", "MCI", "AD", ""])
)
shares = st.tuples(st.floats(0.1, 0.8), st.floats(0.05, 0.15))


@given(strata=subjects, shares=shares, seed=st.integers(0, 100), data=st.data())
def test_the_order_of_subjects_changes_nothing(strata, shares, seed, data):
    params = SplitParams(train=shares[0], val=shares[1], seed=seed)
    shuffled = dict(data.draw(st.permutations(list(strata.items()))))
    assert split_subjects(shuffled, params) == split_subjects(strata, params)


@given(strata=subjects, shares=shares, seed=st.integers(0, 100))
def test_every_subject_is_in_one_split_and_shares_are_exact(strata, shares, seed):
    train, val = shares
    split = split_subjects(strata, SplitParams(train=train, val=val, seed=seed))
    assert split.keys() == strata.keys()
    counts = Counter(split.values())
    assert sum(counts.values()) == len(strata)
    wanted = {"train": train, "val": val, "test": 1 - train - val}
    for name, share in wanted.items():
        # Within one of the exact share, and one more where a split would have been empty.
        assert abs(counts[name] - share * len(strata)) <= 2
        assert counts[name] or len(strata) < 3
