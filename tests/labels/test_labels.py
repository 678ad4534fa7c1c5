"""Labels: each to its own scan, in the right unit, and nothing that names a person."""

import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cohort.manifest import read_manifest, write_manifest
from pipeline.labels.people_tables import PARTICIPANTS
from pipeline.labels.personal_columns import names_a_person
from pipeline.labels.visits import months_of_visit
from pipeline.sources.dicom_source import dicom_sessions, is_dicom
from schemas.errors import ContractError
from stages.cli import app
from tests.support.source_folders import build, touch


def bids_of(root: Path, *names: str, people: str | None = None) -> Path:
    """Make `sub-1_ses-a` T1w files, and participants.tsv from comma-separated text."""
    for name in names:
        folders = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
        touch(root, "/".join([*folders, "anat", f"{name}_T1w.nii.gz"]))
    if people is not None:
        (root / PARTICIPANTS).write_text(people.replace(",", "\t"))
    return root


def table_of(root: Path, text: str, name: str = "t.csv", **kwargs: object) -> pd.DataFrame:
    for line in text.strip().splitlines()[1:]:
        touch(root, next(c for c in line.replace(";", ",").split(",") if c.endswith(".nii")))
    (root / name).write_text(text)
    return build(root / name, "table", **kwargs)[0].set_index("scan_id")


@pytest.mark.parametrize(
    "column",
    ["session", "ses", "visit", "session_id", "visit_id", "timepoint", "VISCODE", "Session ID"],
)
@pytest.mark.parametrize("prefix", ["", "ses-"])
def test_rows_of_one_visit_never_label_another(tmp_path: Path, column: str, prefix: str) -> None:
    rows = f"""\ufeffparticipant_id,{column},age,diagnosis,months
sub-1,{prefix}M00,70,CN,0
sub-1,{prefix}M12,71,AD,12
sub-2,{prefix}M12,61,CN,12
sub-2,{prefix}M00,60,CN,0
"""
    names = [f"sub-{p}_ses-M{m}" for p in (1, 2) for m in ("00", "12")]
    root = bids_of(tmp_path, *names, people=rows.replace("\n", "\r\n"))
    manifest = build(root)[0].set_index("scan_id")
    assert manifest["diagnosis"].to_dict() == dict(
        zip(names, ["CN", "AD", "CN", "CN"], strict=True)
    )
    assert manifest["age_years"].tolist() == [70, 71, 60, 61]
    assert manifest["months_from_first"].tolist() == [0, 12, 0, 12]


def test_a_visit_without_a_row_gets_no_other_visits_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = "participant_id,session,age\nsub-1,1,70\nsub-1,3,72\nsub-2,1,50\n"
    root = bids_of(tmp_path, "sub-1_ses-1", "sub-1_ses-2", "sub-2_ses-1", people=people)
    manifest = build(root)[0].set_index("scan_id")
    assert pd.isna(manifest.loc["sub-1_ses-2", "age_years"])
    assert manifest.loc["sub-1_ses-1", "age_years"] == 70
    expected = "scans without a row: sub-1 ses-2; rows without a scan: sub-1 ses-3"
    assert f"{root / PARTICIPANTS}: {expected}" in caplog.text


def test_a_person_twice_with_other_values_is_refused(tmp_path: Path) -> None:
    people = "participant_id,age,sex\nsub-1,70,F\nsub-2,61,M\nsub-1,71,F\n"
    root = bids_of(tmp_path, "sub-1", "sub-2", people=people)
    with pytest.raises(ContractError, match=r"participants\.tsv: .*sub-1 \(age\).*columns.session"):
        build(root)
    (root / PARTICIPANTS).write_text(people.replace("71", "70.0").replace(",", "\t"))
    assert build(root)[0]["age_years"].tolist() == [70, 61]
    (root / PARTICIPANTS).write_text(people.replace("71", "n/a").replace(",", "\t"))
    assert build(root)[0]["age_years"].tolist() == [70, 61]


def test_two_rows_of_one_visit_that_differ_are_refused(tmp_path: Path) -> None:
    root = bids_of(tmp_path, "sub-1_ses-1", people="participant_id\nsub-1\n")
    (root / "sub-1/sub-1_sessions.tsv").write_text("session_id\tmmse\nses-1\t29\n1\t12\n")
    with pytest.raises(ContractError, match=r"sub-1_sessions\.tsv.*sub-1 ses-1 \(mmse\)"):
        build(root)


def test_a_column_of_visits_can_be_named_and_months_name_them_too(tmp_path: Path) -> None:
    people = "participant_id,exam,age\nsub-1,bl,70\nsub-1,m12,71\n"
    root = bids_of(tmp_path, "sub-1_ses-bl", "sub-1_ses-m12", people=people)
    assert build(root, columns={"session": "exam"})[0]["age_years"].tolist() == [70, 71]
    with pytest.raises(ContractError, match=r"participants\.tsv: no column 'visits'"):
        build(root, columns={"session": "visits"})
    (root / PARTICIPANTS).write_text("participant_id\tmonths\tage\nsub-1\t12\t71\nsub-1\t0\t70\n")
    assert build(root)[0]["age_years"].tolist() == [70, 71]


def test_a_scan_without_session_takes_what_all_rows_agree_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = "participant_id,session,age,sex\nsub-1,1,70,F\nsub-1,2,71,F\nsub-2,1,60,M\n"
    manifest, _ = build(bids_of(tmp_path, "sub-1", "sub-2", people=people))
    assert manifest["sex"].tolist() == ["F", "M"]
    assert pd.isna(manifest["age_years"][0])
    assert manifest["age_years"][1] == 60
    assert "sub-1 (no session in its name" in caplog.text


@pytest.mark.parametrize(
    ("folder", "row"),
    [
        ("ses-M48", "ses-M048"), ("ses-M048", "M48"), ("ses-bl", "M00"), ("ses-month12", "m12"),
        ("ses-01", "1"), ("ses-02", "V2"), ("ses-1", "1.0"), ("ses-Baseline", "BL"),
        ("ses-y1", "m12"),
    ],
)  # fmt: skip
def test_sessions_are_matched_by_number(tmp_path: Path, folder: str, row: str) -> None:
    root = bids_of(tmp_path, f"sub-1_{folder}", people="participant_id,diagnosis\nsub-1,CN\n")
    (root / "sub-1/sub-1_sessions.tsv").write_text(f"session_id\tage\tdx\n{row}\t70\tAD\n")
    assert build(root)[0]["age_years"].tolist() == [70]
    (root / "sub-1/sub-1_sessions.tsv").unlink()
    (root / PARTICIPANTS).write_text(f"participant_id\tsession\tage\nsub-1\t{row}\t71\n")
    assert build(root)[0]["age_years"].tolist() == [71]


def test_what_could_be_two_is_not_matched_but_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = "participant_id,session,age\nsub-1,ses-M6,70\nsub-1,ses-M06,71\n"
    manifest, _ = build(bids_of(tmp_path / "a", "sub-1_ses-M006", people=people))
    assert manifest["age_years"].isna().all()
    assert "several fit one another, none is taken" in caplog.text
    manifest, _ = build(bids_of(tmp_path / "b", "sub-1_ses-M06", "sub-1_ses-M6", people=people))
    assert manifest["age_years"].tolist() == [71, 70]
    # m0 and m1 against 1 and 2: 1 need not be m1.
    people = "participant_id,session,age\nsub-1,m0,70\nsub-1,m1,71\n"
    manifest, _ = build(bids_of(tmp_path / "c", "sub-1_ses-1", "sub-1_ses-2", people=people))
    assert manifest["age_years"].isna().all()
    people = "participant_id,session,age\nsub-1,V0,70\nsub-1,V1,71\n"
    manifest, _ = build(bids_of(tmp_path / "d", "sub-1_ses-1", "sub-1_ses-2", people=people))
    assert manifest["age_years"].isna().all()


def test_subjects_are_matched_whatever_their_leading_zeros(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = "participant_id,age\n50772,20\n50773,21\n50774,22\n"
    root = bids_of(tmp_path, "sub-0050772", "sub-0050773", "sub-0050775", people=people)
    manifest, refused = build(root)
    assert manifest["age_years"].tolist()[:2] == [20, 21]
    assert list(refused["scan_id"]) == ["sub-50774"]
    assert "sub-50772 as sub-0050772" in caplog.text
    assert "scans without a row: sub-0050775; rows without a scan: sub-50774" in caplog.text


def test_equal_numbers_of_two_subjects_are_not_matched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = bids_of(tmp_path, "sub-01", "sub-001", people="participant_id,age\n1,20\n")
    assert build(root)[0]["age_years"].isna().all()
    assert "several fit one another" in caplog.text
    (root / PARTICIPANTS).write_text("participant_id\tage\n1\t20\n01\t30\n")
    manifest = build(root)[0].set_index("scan_id")
    assert manifest.loc["sub-01", "age_years"] == 30
    assert manifest.loc["sub-001", "age_years"] == 20


def test_dry_run_shows_rows_without_scans(tmp_path: Path) -> None:
    people = "participant_id,session,age\nsub-1,ses-2,70\n"
    root = bids_of(tmp_path / "in", "sub-1_ses-1", people=people)
    asked = ["cohort", "--input", str(root), "--out", str(tmp_path / "out"), "--dry-run"]
    output = CliRunner().invoke(app, asked).output
    assert "scans without a row: sub-1 ses-1; rows without a scan: sub-1 ses-2" in " ".join(
        output.split()
    )


@pytest.mark.parametrize(
    ("name", "months"),
    [
        ("bl", 0), ("sc", 0), ("scmri", 0), ("v00", 0), ("M00", 0), ("ses-bl", 0), ("baseline", 0),
        ("Screening", 0), ("m06", 6), ("ses-M048", 48), ("ses-month12", 12), ("12mo", 12),
        ("24 months", 24), ("ses-y1", 12), ("2yr", 24), ("Year 3", 36), ("d0129", 4.238),
        ("wk26", 5.979), ("visit_m12", 12), ("1.5y", 18), ("v04", None), ("ses-1", None),
        ("unsched", None), ("wave2", None), ("12", None), ("4_m12", None), ("", None),
        ("followup", None), ("mri", None),
    ],
)  # fmt: skip
def test_visit_codes_tell_months(name: str, months: float | None) -> None:
    found = months_of_visit(name)
    assert found == (None if months is None else pytest.approx(months, abs=0.01))


def test_adni_visits_are_months_0_6_12_24(tmp_path: Path) -> None:
    rows = "".join(f"1,{v},{v}.nii\n" for v in ("m24", "bl", "m12", "m06"))
    manifest = table_of(tmp_path, "PTID,VISCODE,path\n" + rows)
    assert manifest["months_from_first"].to_dict() == {
        "sub-1_ses-bl": 0, "sub-1_ses-m06": 6, "sub-1_ses-m12": 12, "sub-1_ses-m24": 24
    }  # fmt: skip


@pytest.mark.parametrize(
    ("visits", "ages", "months"),
    [
        (["sc", "bl", "m06"], "   ", [None, None, 6]),
        (["sc", "bl", "m06"], ["70.0", "70.1", "70.6"], [0, 1.2, 6]),
        (["bl", "m12", "uns1"], "   ", [0, 12, None]),
        (["m12", "m24", "uns1"], "   ", [None, None, None]),
        (["m12", "m24", "uns1"], ["71", "72", "70"], [12, 24, 0]),
        (["m12", "y1", "bl"], "   ", [None, None, 0]),
        (["a", "b", "c"], ["70", "70", "71"], [None, None, 12]),
        (["a", "b", "c"], ["70", "", "71"], [None, None, None]),
        (["20190101", "20200101", "20210101"], "   ", [0, 11.99, 24.02]),
        (["d0000", "d0365", "d0730"], "   ", [0, 11.99, 23.98]),
    ],
)
def test_two_scans_of_a_person_never_share_a_month_by_mistake(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    visits: list[str],
    ages: list[str],
    months: list[float | None],
) -> None:
    rows = "".join(f"1,{v},{v}.nii,{a.strip()}\n" for v, a in zip(visits, ages, strict=True))
    manifest = table_of(tmp_path, "subject,visit,path,age\n" + rows)
    found = [manifest.loc[f"sub-1_ses-{v}", "months_from_first"] for v in visits]
    assert found == pytest.approx([float("nan") if m is None else m for m in months], nan_ok=True)
    assert ("months_from_first stays empty" in caplog.text) == (None in months)
    if None in months:
        assert f"{visits[months.index(None)]}.nii" in caplog.text


def test_months_of_another_column_of_visits_serve_where_sessions_are_counted(
    tmp_path: Path,
) -> None:
    manifest = table_of(
        tmp_path, "subject,session,VISCODE2,path\n1,1,bl,a.nii\n1,2,m12,b.nii\n2,1,bl,c.nii\n"
    )
    assert manifest["months_from_first"].tolist() == [0, 12, 0]


def test_visits_of_a_table_without_sessions_go_by_their_months(tmp_path: Path) -> None:
    manifest = table_of(tmp_path, "subject,months,path\n1,12,a.nii\n1,0,b.nii\n2,0,c.nii\n")
    assert list(manifest.index) == ["sub-1_ses-M0", "sub-1_ses-M12", "sub-2"]
    assert manifest["months_from_first"].tolist() == [0, 12, 0]


def test_names_that_shrink_to_one_label_are_refused(tmp_path: Path) -> None:
    text = "subject,visit,path\n1_12,bl,a.nii\n11_2,m12,b.nii\n"
    with pytest.raises(ContractError, match=r"t\.csv: '1_12' and '11_2' .* sub-112"):
        table_of(tmp_path, text)
    with pytest.raises(ContractError, match=r"'m.1' and 'm1' of sub-1 .* ses-m1"):
        table_of(tmp_path, "subject,visit,path\n1,m.1,a.nii\n1,m1,b.nii\n")
    with pytest.raises(ContractError, match=r"'11\.0' and '110'"):
        table_of(tmp_path, "subject,path\n11.0,a.nii\n110,b.nii\n11.5,c.nii\n")
    # The same name in other spellings is one person still.
    manifest = table_of(tmp_path, "subject,visit,path\n1_12,bl,a.nii\nsub-1_12 ,m12,b.nii\n")
    assert set(manifest["subject_id"]) == {"sub-112"}


@pytest.mark.parametrize("source", ["folder", "dicom", "bids", "participants"])
def test_folders_that_shrink_to_one_label_are_refused(tmp_path: Path, source: str) -> None:
    if source == "bids":
        bids_of(tmp_path, "sub-zoë", "sub-zoe")
    elif source == "participants":
        bids_of(tmp_path, "sub-zoe", people="participant_id,age\nzoë,1\nzoe,1\n")
    else:
        ending = "dcm" if source == "dicom" else "nii"
        touch(tmp_path, f"zoë/t1/1.{ending}", f"zoe/x/2.{ending}")
    kind = "bids" if source == "participants" else source
    take = dicom_sessions if kind == "dicom" else partial(build, source=kind)
    # A Mac writes the letter and its accent apart; the name is shown whole.
    with pytest.raises(
        ContractError, match=r"'zo(e|ë)' and 'zo(ë|e)' would both be called sub-zoe"
    ):
        take(tmp_path)


def test_float_ids_of_a_spreadsheet_are_whole_numbers(tmp_path: Path) -> None:
    text = "subject,visit,path\n11.0,1.0,a.nii\n110.0,1.0,b.nii\n12.0,2.0,c.nii\n"
    manifest = table_of(tmp_path, text)
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
    assert table_of(tmp_path, "subject,path,age\n1,a.nii,840\n")["age_years"].tolist() == [70]
    (tmp_path / "t.json").write_text("{")
    assert table_of(tmp_path, "subject,path,age\n1,a.nii,84\n")["age_years"].tolist() == [84]


def test_the_unit_in_a_columns_name_is_read(tmp_path: Path) -> None:
    text = "subject,path,age_months\n1,a.nii,840\n"
    columns = {"age": "age_months"}
    assert table_of(tmp_path, text, columns=columns)["age_years"].tolist() == [70]


@pytest.mark.parametrize("codes", [("1", "2"), ("0", "1"), ("1.0", "2.0")])
def test_codes_of_sex_stay_and_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, codes: tuple[str, str]
) -> None:
    rows = [f"{i},{i}.nii,{code}" for i, code in enumerate([*codes, codes[0], "unknown", "f"])]
    manifest = table_of(tmp_path, "\n".join(["subject,path,sex", *rows]) + "\n")
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
    manifest = table_of(tmp_path, "\n".join(["subject,path,age", *rows]) + "\n")
    nan = float("nan")
    assert manifest["age_years"].tolist() == pytest.approx(
        [nan, nan, nan, 89, 70, nan, 71], nan_ok=True
    )
    assert manifest["age_text"].fillna("").tolist() == [*ages[:4], "", "", ""]
    assert "0.nii (18-38), 1.nii (66yo), 2.nii (seventy)" in caplog.text
    assert "3.nii (89+)" in caplog.text
    write_manifest(manifest.reset_index(), tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv")["age_text"][3] == "89+"


def test_a_birth_date_among_ages_is_neither_shown_nor_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = table_of(tmp_path, "subject,path,age\n1,a.nii,12/03/1950\n2,b.nii,19500312\n")
    assert manifest["age_years"].isna().all()
    assert "1950" not in manifest.drop(columns="path").to_csv() + caplog.text
    assert "a.nii (a date, not kept)" in caplog.text


def test_a_folder_of_images_has_labels_of_participants_too(tmp_path: Path) -> None:
    touch(tmp_path, "001/T1.nii", "002/T1.nii")
    (tmp_path / PARTICIPANTS).write_text("participant_id\tage\n1\t70\n2\t71\n")
    assert build(tmp_path, "folder")[0]["age_years"].tolist() == [70, 71]


def test_one_bad_month_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = table_of(
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
        manifest = table_of(tmp_path, text)
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


def test_a_sessions_table_that_cannot_be_read_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = bids_of(tmp_path, "sub-1_ses-1", "sub-2_ses-1", people="participant_id\nsub-1\nsub-2\n")
    (root / "sub-1/sub-1_sessions.tsv").write_text("when\tage\n1\t70\n")
    (root / "sub-2/sub-2_sessions.tsv").write_text("session\tage\n1\t71\n")
    manifest, _ = build(root)
    assert pd.isna(manifest["age_years"][0])
    assert manifest["age_years"][1] == 71
    assert "sub-1_sessions.tsv: no column session_id (has when, age)" in caplog.text


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


def test_files_that_systems_leave_behind_are_passed_over(tmp_path: Path) -> None:
    root = bids_of(tmp_path / "b", "sub-1", people="participant_id\nsub-1\n")
    touch(root, "sub-1/anat/._sub-1_T1w.nii.gz", "._sub-2/anat/sub-2_T1w.nii.gz")
    manifest, refused = build(root)
    assert list(manifest["scan_id"]) == ["sub-1"]
    assert refused.empty
    folder = tmp_path / "f"
    touch(folder, "a/1.nii", "a/._1.nii", "__MACOSX/a/1.nii", ".git/annex/objects/x/y/z.nii.gz",
          "a/@eaDir/1.nii", "a/Thumbs.db")  # fmt: skip
    assert list(build(folder, "folder")[0]["scan_id"]) == ["sub-a_acq-1"]
    touch(folder, "._1.dcm")
    assert not is_dicom(folder / "._1.dcm")


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


def test_paths_are_whole_and_short_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "im/a.nii", "tables/x")
    (tmp_path / "im/b.nii").write_bytes(b"")
    (tmp_path / "tables/t.csv").write_text("subject,path\n1,../im/a.nii\n2,../im/b.nii\n")
    monkeypatch.chdir(tmp_path / "im")
    manifest, refused = build(Path("../tables/t.csv"), "table")
    assert manifest["path"].tolist() == [str(tmp_path / "im/a.nii")]
    assert refused["path"].tolist() == [str(tmp_path / "im/b.nii")]
    bids_of(tmp_path / "bids", "sub-1", people="participant_id\nsub-1\nsub-2\n")
    assert build(Path("../bids"))[1]["path"].tolist() == [str(tmp_path / "bids/sub-2")]


def test_init_counts_people_and_scans(tmp_path: Path) -> None:
    root = bids_of(tmp_path / "b", "sub-1_ses-1", "sub-1_ses-2", "sub-2_ses-1",
                   people="participant_id,group\nsub-1,HC\nsub-2,MCI\n")  # fmt: skip
    result = CliRunner().invoke(app, ["init", str(tmp_path / "study"), "--input", str(root)])
    assert "3 scans of 2 subjects found." in result.output
    assert "diagnosis holds HC (1), MCI (1), not CN and AD" in result.output
