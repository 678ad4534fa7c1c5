"""People whom the bundled networks saw are known by their files, told, and kept out if asked."""

import pandas as pd
import pytest

from pipeline.cohort import bundled_people
from pipeline.cohort.bundled_people import (
    is_seen,
    seen_by_split,
    seen_digests,
    takes_bundled_ldae,
    warning_of_seen,
    warning_of_seen_in_folds,
)
from pipeline.cohort.ingest import build_manifest
from pipeline.cohort.split import split_unseen
from schemas.params import CohortParams, Params, SplitParams
from tests.support.paths import ROOT

PARAMS = SplitParams(train=0.6, val=0.15)


def test_every_real_scan_of_the_recipes_is_in_the_list():
    scans = pd.read_csv(ROOT / "recipes" / "bundled_ae" / "scans.csv")
    people = pd.read_csv(ROOT / "recipes" / "bundled_ldae" / "people.csv")
    real = scans[~scans["dataset"].str.startswith("phantom")]
    assert set(people["subject_id"]) == set(real["scan_id"])
    table = pd.read_csv(bundled_people.SEEN)
    assert len(seen_digests()) == len(table) == len(real)
    assert table["source_digest"].str.fullmatch("[0-9a-f]{64}").all()
    assert (table["split"].value_counts() == real["split"].value_counts()).all()


def test_all_scans_of_a_person_count_where_one_was_seen():
    digest = sorted(seen_digests())[0]
    table = pd.DataFrame(
        {
            "subject_id": ["a", "a", "b", "c"],
            "source_digest": ["0" * 64, digest, "1" * 64, sorted(seen_digests())[1]],
            "split": ["test", "test", "test", "train"],
        }
    )
    assert is_seen(table).tolist() == [True, True, False, True]
    assert seen_by_split(table) == {"test": 1, "train": 1}
    told = warning_of_seen(table)
    assert "trained on 1 subject (1 of test)" in told
    assert "cohort.split.seen: train" in told
    assert warning_of_seen(table[table["split"] == "train"]) is None
    assert "trained on 2 subjects of these" in warning_of_seen_in_folds(table)
    assert warning_of_seen_in_folds(table[table["subject_id"] == "b"]) is None


@pytest.mark.parametrize("known", [0, 10, 30, 40])
def test_seen_people_train_and_the_others_are_judged(known):
    strata = {f"sub-{i:03d}": "AD" if i % 2 else "CN" for i in range(40)}
    seen = set(list(strata)[:known])
    splits = pd.Series(split_unseen(strata, seen, PARAMS))
    assert (splits[list(seen)] == "train").all()
    assert len(splits) == 40
    counts = splits.value_counts().to_dict()
    expected = {0: (24, 6, 10), 10: (24, 6, 10), 30: (30, 4, 6), 40: (40, 0, 0)}[known]
    assert tuple(counts.get(name, 0) for name in ("train", "val", "test")) == expected


def test_the_cohort_keeps_them_out_of_judgement(tmp_path, monkeypatch):
    for i in range(20):
        (tmp_path / f"sub-{i:02d}_T1w.nii").write_bytes(bytes([i]) * 400)
    params = CohortParams(source="folder")
    before, _ = build_manifest(params, input_path=tmp_path)
    judged = before[before["split"] != "train"].head(4)
    monkeypatch.setattr(bundled_people, "seen_digests", lambda: frozenset(judged["source_digest"]))
    split = params.split.model_copy(update={"seen": "train"})
    after, _ = build_manifest(params.model_copy(update={"split": split}), input_path=tmp_path)
    assert set(after.loc[is_seen(after), "split"]) == {"train"}
    assert after["split"].value_counts().to_dict() == before["split"].value_counts().to_dict()


@pytest.mark.parametrize(
    ("autoencoder", "zooms", "start", "prior_people", "taken"),
    [
        ("bundled", 3.0, "auto", 0, True),
        ("bundled", 3.0, None, 50, True),
        ("bundled", 3.0, None, 0, False),
        ("bundled", 1.5, "auto", 50, False),
        ("train", 3.0, "auto", 50, False),
        ("train", 3.0, "bundled", 0, True),
    ],
)
def test_the_bundled_ldae_comes_in_by_a_start_or_by_its_modes(
    autoencoder, zooms, start, prior_people, taken
):
    params = Params.model_validate(
        {
            "autoencoder": {"source": autoencoder},
            "preprocess": {"grid": {"zooms": zooms}},
            "train_ldm": {"start_from": start},
            "train_ldae": {"start_from": start, "encoder": {"prior_people": prior_people}},
        }
    )
    assert takes_bundled_ldae(params) is taken
