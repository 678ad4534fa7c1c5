"""One contrast a study: by BIDS suffix, or by a column of a table."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.contrast import study_contrast, with_contrast
from pipeline.cohort.ingest import build_cohort
from schemas.errors import ContractError
from schemas.params import CohortParams, PreprocessParams


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    for subject in ("1", "2", "3"):
        folder = tmp_path / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        for number, suffix in enumerate(("T1w", "FLAIR", "T2w")):
            data = np.full((4, 5, 6), int(subject) * 10 + number, np.int16)
            nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"sub-{subject}_{suffix}.nii.gz")
    return tmp_path


def test_a_study_of_flair_takes_flair_and_its_manifest_tells(dataset):
    cohort = build_cohort(CohortParams(source="bids", suffix="FLAIR"), input_path=dataset)
    assert [Path(p).name for p in cohort.manifest["path"]] == [
        f"sub-{n}_FLAIR.nii.gz" for n in (1, 2, 3)
    ]
    assert set(cohort.manifest["contrast"]) == {"FLAIR"}
    params = with_contrast(PreprocessParams(), cohort.manifest)
    assert params.contrast == "FLAIR"
    plain = build_cohort(CohortParams(source="bids"), input_path=dataset).manifest
    assert "contrast" not in plain
    assert with_contrast(PreprocessParams(), plain).contrast is None


@pytest.mark.parametrize("name", ["contrast", "suffix"])
def test_rows_of_a_table_of_another_contrast_are_left_out(dataset, tmp_path, name):
    rows = [
        {"path": str(path), "subject": path.name[:5], name: path.name[6:].split(".")[0]}
        for path in sorted(dataset.rglob("*.nii.gz"))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "scans.csv", index=False)
    params = CohortParams(source="table", suffix="T2w")
    cohort = build_cohort(params, input_path=tmp_path / "scans.csv")
    assert len(cohort.manifest) == 3
    assert set(cohort.manifest["contrast"]) == {"T2w"}
    left = cohort.refused[cohort.refused["stage"] == "selection"]
    assert len(left) == 6
    assert f"{name} is FLAIR, cohort.suffix takes T2w" in set(left["reason"])


def test_a_column_of_other_words_is_a_label(dataset, tmp_path):
    rows = [
        {"path": str(path), "subject": path.name[:5], "contrast": "yes"}
        for path in sorted(dataset.rglob("*_T1w.nii.gz"))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "scans.csv", index=False)
    cohort = build_cohort(CohortParams(source="table"), input_path=tmp_path / "scans.csv")
    assert list(cohort.manifest["contrast"]) == ["yes"] * 3
    assert with_contrast(PreprocessParams(), cohort.manifest).contrast is None


def test_a_scan_without_a_contrast_beside_others_is_a_t1w():
    mixed = pd.DataFrame({"contrast": ["FLAIR", None]})
    with pytest.raises(ContractError, match="contrasts FLAIR, T1w; one a study"):
        with_contrast(PreprocessParams(), mixed)


def test_one_contrast_a_study():
    assert study_contrast(CohortParams(suffix=["T1w", "UNIT1"])) == "T1w"
    assert study_contrast(CohortParams(suffix="angio")) == "other"
    with pytest.raises(ContractError, match=r"of several contrasts \(FLAIR, T1w\)"):
        study_contrast(CohortParams(suffix=["T1w", "FLAIR"]))
    mixed = pd.DataFrame({"contrast": ["T2w", "FLAIR"]})
    with pytest.raises(ContractError, match="contrasts FLAIR, T2w; one a study"):
        with_contrast(PreprocessParams(), mixed)
    with pytest.raises(ContractError, match=r"preprocess.contrast is T2w.*are FLAIR"):
        with_contrast(PreprocessParams(contrast="T2w"), mixed[1:])
