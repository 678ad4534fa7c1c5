"""The split: exact, stratified, by subject, or a column of the user's."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.cohort.manifest import write_manifest
from pipeline.cohort.split import split_subjects
from schemas.errors import ContractError
from schemas.params import SplitParams
from tests.support.source_folders import build, touch


def test_split_is_exact_stratified_and_ignores_order() -> None:
    strata = {f"sub-{i:03d}": "AD" if i % 2 else "CN" for i in range(24)}
    params = SplitParams(train=0.6, val=0.15)
    split = split_subjects(strata, params)
    counts = pd.Series(split).value_counts()
    assert counts.to_dict() == {"train": 14, "val": 4, "test": 6}
    reverse = split_subjects(dict(reversed(strata.items())), params)
    assert split == reverse
    for name in ("train", "val", "test"):
        sick = sum(strata[s] == "AD" for s, v in split.items() if v == name)
        assert abs(sick - counts[name] / 2) <= 1
    other = split_subjects(strata, params.model_copy(update={"seed": params.seed + 1}))
    assert other != split


@pytest.mark.parametrize("total", [3, 4, 6])
def test_small_cohorts_leave_no_split_empty(total: int) -> None:
    split = split_subjects({f"s{i}": "" for i in range(total)}, SplitParams(train=0.8, val=0.1))
    assert set(split.values()) == {"train", "val", "test"}


def table_with_split(folder: Path, splits: list[str]) -> Path:
    names = [f"{i}.nii" for i in range(len(splits))]
    touch(folder, *names)
    people = ["a", *(f"p{i}" for i in range(len(splits) - 2)), "a"]
    table = pd.DataFrame({"subject": people, "path": names, "split": splits})
    table["session"] = [f"s{i}" for i in range(len(splits))]
    path = folder / "table.csv"
    table.to_csv(path, index=False)
    return path


def test_a_split_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    path = table_with_split(tmp_path, ["Test", "train", "validation", "train", "test"])
    manifest, _ = build(path, "table")
    assert dict(zip(manifest["scan_id"], manifest["split"], strict=True)) == {
        "sub-a_ses-s0": "test",
        "sub-p0_ses-s1": "train",
        "sub-p1_ses-s2": "val",
        "sub-p2_ses-s3": "train",
        "sub-a_ses-s4": "test",
    }
    write_manifest(manifest, tmp_path / "m.csv")
    assert list(build(tmp_path / "m.csv", "table")[0]["split"]) == list(manifest["split"])


@pytest.mark.parametrize(("word", "said"), [("fold-1", "is 'fold-1'"), ("", "is empty")])
def test_a_split_that_says_something_else_is_refused(tmp_path: Path, word: str, said: str) -> None:
    path = table_with_split(tmp_path, ["train", word, "val", "test", "train"])
    with pytest.raises(ContractError, match=f"split of sub-p0 {said}.*rename the column"):
        build(path, "table")


def test_a_subject_in_two_splits_of_ones_own_is_refused(tmp_path: Path) -> None:
    path = table_with_split(tmp_path, ["train", "val", "test", "train", "test"])
    with pytest.raises(ContractError, match=r"table\.csv: sub-a is in two splits"):
        build(path, "table")


def test_a_split_that_lacks_a_class_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sexes = dict(enumerate("FFFFMMMM", 1))
    touch(tmp_path, *(f"{i}.nii" for i in sexes))
    splits = ["train"] * 4 + ["test"] * 4
    rows = [f"{i},{i}.nii,{sexes[i]},{splits[i - 1]}" for i in sexes]
    people = tmp_path / "people.csv"
    people.write_text("\n".join(["subject,path,sex,split", *rows]) + "\n")
    build(people, "table")
    assert "sex: no F in test, no M in train; probes of it cannot be judged" in caplog.text
    caplog.clear()
    people.write_text(
        people.read_text().replace("1.nii,F", "1.nii,M").replace("5.nii,M", "5.nii,F")
    )
    build(people, "table")
    assert "cannot be judged" not in caplog.text
