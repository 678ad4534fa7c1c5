"""Labels: each to its own scan, by person and by visit."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.labels.people_tables import PARTICIPANTS
from pipeline.labels.visits import months_of_visit
from schemas.errors import ContractError
from tests.support.source_folders import bids_of, build, manifest_of_table


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
    manifest = manifest_of_table(tmp_path, "PTID,VISCODE,path\n" + rows)
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
    manifest = manifest_of_table(tmp_path, "subject,visit,path,age\n" + rows)
    found = [manifest.loc[f"sub-1_ses-{v}", "months_from_first"] for v in visits]
    assert found == pytest.approx([float("nan") if m is None else m for m in months], nan_ok=True)
    assert ("months_from_first stays empty" in caplog.text) == (None in months)
    if None in months:
        assert f"{visits[months.index(None)]}.nii" in caplog.text


def test_months_of_another_column_of_visits_serve_where_sessions_are_counted(
    tmp_path: Path,
) -> None:
    manifest = manifest_of_table(
        tmp_path, "subject,session,VISCODE2,path\n1,1,bl,a.nii\n1,2,m12,b.nii\n2,1,bl,c.nii\n"
    )
    assert manifest["months_from_first"].tolist() == [0, 12, 0]


def test_visits_of_a_table_without_sessions_go_by_their_months(tmp_path: Path) -> None:
    manifest = manifest_of_table(
        tmp_path, "subject,months,path\n1,12,a.nii\n1,0,b.nii\n2,0,c.nii\n"
    )
    assert list(manifest.index) == ["sub-1_ses-M0", "sub-1_ses-M12", "sub-2"]
    assert manifest["months_from_first"].tolist() == [0, 12, 0]
