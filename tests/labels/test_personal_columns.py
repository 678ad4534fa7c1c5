"""Nothing that names a person is kept."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.labels.personal_columns import names_a_person
from tests.support.source_folders import build, manifest_of_table, touch


def test_a_birth_date_among_ages_is_neither_shown_nor_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = manifest_of_table(
        tmp_path, "subject,path,age\n1,a.nii,12/03/1950\n2,b.nii,19500312\n"
    )
    assert manifest["age_years"].isna().all()
    assert "1950" not in manifest.drop(columns="path").to_csv() + caplog.text
    assert "a.nii (a date, not kept)" in caplog.text


PERSONAL = ["Name", "First Name", "patient_name", "PatientBirthDate", "DOB", "date_of_birth",
            "Address", "zip_code", "Phone", "E-mail", "MRN", "cognome", "Geburtsdatum"]  # fmt: skip


@pytest.mark.parametrize("column", PERSONAL)
def test_columns_that_name_a_person_stay_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    text = f"subject,path,age,{column}\n1,a.nii,70,Rossi-1950\n1,a.nii,70,Rossi-1951\n"
    caplog.set_level("INFO")
    manifest, refused = build_text(tmp_path, text)
    assert column not in manifest
    assert "Rossi" not in manifest.to_csv() + refused.to_csv() + caplog.text
    assert f"left out of the manifest, since they may name a person: {column}" in caplog.text
    kept, _ = build_text(tmp_path, text.replace("-1951", "-1950"), columns={"keep": column})
    assert kept["keep"].tolist() == ["Rossi-1950"]
    assert "go into the manifest, as cohort.columns asks" in caplog.text


def build_text(root: Path, text: str, **kwargs: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    touch(root, "a.nii", "b.nii")
    (root / "t.csv").write_text(text)
    return build(root / "t.csv", "table", **kwargs)


@pytest.mark.parametrize(
    "column",
    ["site", "birth_weight", "scanner_name", "site_name", "group_name", "filename", "apoe",
     "hometown_size", "mailing_list_size", "phonemic_fluency", "cap_score", "naming", "diagnosis"],
)  # fmt: skip
def test_columns_that_name_nobody_stay(column: str) -> None:
    assert not names_a_person(column)


def test_columns_are_left_out_as_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "subject,path,comment,ward\n1,a.nii,lives in Rome,3\n2,b.nii,x,4\n"
    manifest, _ = build_text(tmp_path, text, leave_out=["Comment", "wrad"])
    assert "comment" not in manifest
    assert manifest["ward"].tolist() == [3, 4]
    assert "cohort.leave_out: no column wrad" in caplog.text
