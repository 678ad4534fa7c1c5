"""Cells of tables: numbers, units, codes, in any table that people have."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.cohort.manifest import read_manifest, write_manifest
from pipeline.labels.people_tables import PARTICIPANTS
from schemas.errors import ContractError
from tests.support.source_folders import bids_of, build, manifest_of_table, touch


def test_float_ids_of_a_spreadsheet_are_whole_numbers(tmp_path: Path) -> None:
    text = "subject,visit,path\n11.0,1.0,a.nii\n110.0,1.0,b.nii\n12.0,2.0,c.nii\n"
    manifest = manifest_of_table(tmp_path, text)
    assert list(manifest.index) == ["sub-110_ses-1", "sub-11_ses-1", "sub-12_ses-2"]
    table = pd.DataFrame({"subject": [11, 12, None], "path": ["a.nii", "b.nii", "c.nii"]})
    table.to_parquet(tmp_path / "t.parquet")
    assert list(build(tmp_path / "t.parquet", "table")[0]["subject_id"]) == ["sub-11", "sub-12"]
    (tmp_path / "t.csv").write_text("subject,scan_id,path\n1,7.0,a.nii\n2,8.0,b.nii\n")
    assert list(build(tmp_path / "t.csv", "table")[0]["scan_id"]) == ["7", "8"]


@pytest.mark.parametrize(
    ("unit", "ages"),
    [("months", ["840", "12"]), ("weeks", ["3652.5", "52.18"]), ("day", ["25567.5", "365.25"])],
)
def test_units_of_the_sidecar_hold_for_ages(tmp_path: Path, unit: str, ages: list[str]) -> None:
    people = f"participant_id,Age\nsub-1,{ages[0]}\nsub-2,{ages[1]}\n"
    root = bids_of(tmp_path, "sub-1", "sub-2", people=people)
    (root / "participants.json").write_text("\ufeff" + json.dumps({"age": {"Units": unit}}))
    assert build(root)[0]["age_years"].tolist() == pytest.approx([70, 1], abs=0.001)


def test_levels_of_the_sidecar_tell_sex_and_diagnosis(tmp_path: Path) -> None:
    people = "participant_id,sex,dx,group\nsub-1,1,0,x\nsub-2,2,1,y\nsub-3,M,CN,z\n"
    root = bids_of(tmp_path, "sub-1", "sub-2", "sub-3", people=people)
    levels = {
        "sex": {"Levels": {"1": "male", "2": {"Description": "female participants"}}},
        "dx": {"Levels": {"0": "CN", "1": "AD", "CN": "cognitively normal"}},
    }
    (root / "participants.json").write_text(json.dumps(levels))
    manifest, _ = build(root)
    assert manifest["sex"].tolist() == ["M", "F", "M"]
    assert manifest["diagnosis"].tolist() == ["CN", "AD", "CN"]
    # In Spanish M is a woman.
    (root / "participants.json").write_text(
        json.dumps({"sex": {"Levels": {"M": "mujer", "1": "hombre", "2": "mujer"}}})
    )
    assert build(root)[0]["sex"].tolist() == ["M", "F", "F"]


def test_sidecars_of_sessions_and_tables_are_read(tmp_path: Path) -> None:
    root = bids_of(tmp_path / "b", "sub-1_ses-1", "sub-2_ses-1", people="participant_id\nsub-1\n")
    for name in ("sub-1", "sub-2"):
        (root / name / f"{name}_sessions.tsv").write_text("session\tage\n1\t840\n")
    (root / "sessions.json").write_text(json.dumps({"age": {"Units": "months"}}))
    (root / "sub-2/sub-2_sessions.json").write_text(json.dumps({"age": {"Units": "weeks"}}))
    assert build(root)[0]["age_years"].tolist() == pytest.approx([70, 16.1], abs=0.01)
    (tmp_path / "t.json").write_text(json.dumps({"age": {"Units": "months"}}))
    assert manifest_of_table(tmp_path, "subject,path,age\n1,a.nii,840\n")["age_years"].tolist() == [
        70
    ]
    (tmp_path / "t.json").write_text("{")
    assert manifest_of_table(tmp_path, "subject,path,age\n1,a.nii,84\n")["age_years"].tolist() == [
        84
    ]


def test_the_unit_in_a_columns_name_is_read(tmp_path: Path) -> None:
    text = "subject,path,age_months\n1,a.nii,840\n"
    columns = {"age": "age_months"}
    assert manifest_of_table(tmp_path, text, columns=columns)["age_years"].tolist() == [70]


@pytest.mark.parametrize("codes", [("1", "2"), ("0", "1"), ("1.0", "2.0")])
def test_codes_of_sex_stay_and_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codes: tuple[str, str]
) -> None:
    rows = [f"{i},{i}.nii,{code}" for i, code in enumerate([*codes, codes[0], "unknown", "f"])]
    manifest = manifest_of_table(tmp_path, "\n".join(["subject,path,sex", *rows]) + "\n")
    plain = [code.removesuffix(".0") for code in codes]
    assert manifest["sex"].tolist()[:3] == [*plain, plain[0]]
    assert pd.isna(manifest["sex"].iloc[3])
    assert manifest["sex"].iloc[4] == "F"
    assert f"sex holds '{plain[0]}' (2 times), '{plain[1]}' (1 times)" in caplog.text
    write_manifest(manifest.reset_index(), tmp_path / "manifest.csv")
    again = read_manifest(tmp_path / "manifest.csv")
    assert again["sex"].tolist()[:2] == plain


def test_one_bad_age_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ages = ["18-38", "66yo", "seventy", "89+", "70", "n/a", " 71 "]
    rows = [f"{i},{i}.nii,{age}" for i, age in enumerate(ages)]
    manifest = manifest_of_table(tmp_path, "\n".join(["subject,path,age", *rows]) + "\n")
    nan = float("nan")
    assert manifest["age_years"].tolist() == pytest.approx(
        [nan, nan, nan, 89, 70, nan, 71], nan_ok=True
    )
    assert manifest["age_text"].fillna("").tolist() == [*ages[:4], "", "", ""]
    assert "0.nii (18-38), 1.nii (66yo), 2.nii (seventy)" in caplog.text
    assert "3.nii (89+)" in caplog.text
    write_manifest(manifest.reset_index(), tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv")["age_text"][3] == "89+"


def test_one_bad_month_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = manifest_of_table(
        tmp_path,
        "subject,session,path,months\n1,a,a.nii,bl\n1,b,b.nii,m12\n2,a,c.nii,soon\n2,b,d.nii,6\n",
    )
    assert manifest["months_from_first"].tolist()[:2] == [0, 12]
    assert pd.isna(manifest["months_from_first"].iloc[2])
    assert "no number of months, taken as unknown: c.nii (soon)" in caplog.text


def test_commas_are_decimal_where_semicolons_separate(tmp_path: Path) -> None:
    text = (
        "subject;session;path;age;months;icv;note;list\n1;a;a.nii;61,5;0;1.450,5;x,y;1,2,3\n"
        "1;b;b.nii;62,5;12,5;980;1,5;1,2\n2;a;c.nii;seventy;0;n/a;z;2\n"
    )
    for header in ("", "sep=;\n"):
        manifest = manifest_of_table(tmp_path, text)
        (tmp_path / "t.csv").write_text(header + text)
        manifest = build(tmp_path / "t.csv", "table")[0]
        assert manifest["age_years"].tolist()[:2] == [61.5, 62.5]
        assert manifest["months_from_first"].tolist()[:2] == [0, 12.5]
        assert manifest["icv"].tolist()[:2] == [1450.5, 980]
        assert manifest["note"].tolist() == ["x,y", "1,5", "z"]
        assert manifest["list"].tolist() == ["1,2,3", "1,2", "2"]


def test_a_separator_at_the_end_of_lines_moves_no_column(tmp_path: Path) -> None:
    root = bids_of(tmp_path, "sub-1", people="participant_id,age\nsub-1,70,\n")
    assert build(root)[0]["age_years"].tolist() == [70]
    (root / PARTICIPANTS).write_text("participant_id\tage\nsub-1\t70\tx\n")
    with pytest.raises(ContractError, match=r"participants\.tsv: line 2 has 3 cells, the header 2"):
        build(root)


def test_a_tsv_with_commas_and_a_header_twice_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = bids_of(tmp_path, "sub-1")
    (root / PARTICIPANTS).write_text("participant_id,age,age\nsub-1,70,71\n")
    assert build(root)[0]["age_years"].tolist() == [70]
    assert f"{root / PARTICIPANTS}: more than one column age" in caplog.text


def test_blanks_and_case_make_no_other_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = ["CN ", "cn", "CN", "CN", "AD", " AD"]
    rows = [f'{i},{i}.nii,"{cell}","s {i % 2} "' for i, cell in enumerate(cells)]
    for i in range(len(cells)):
        touch(tmp_path, f"{i}.nii")
    (tmp_path / "t.csv").write_text("\n".join(["subject,path,dx,site", *rows]) + "\n")
    manifest, _ = build(tmp_path / "t.csv", "table")
    assert manifest["diagnosis"].tolist() == ["CN"] * 4 + ["AD"] * 2
    assert manifest["site"].tolist() == ["s 0", "s 1"] * 3
    assert "diagnosis: ' AD' as 'AD', 'CN ' as 'CN', 'cn' as 'CN' (3 cells)" in caplog.text
