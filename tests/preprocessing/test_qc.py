"""Reviewing QC: overrides, the summary, contact sheets."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.figures.contact_sheet import draw_sheet
from pipeline.imaging import preprocess_scan as chain
from pipeline.preprocessing import contact_sheets as sheets
from pipeline.preprocessing.qc_overrides import Override, read_overrides, write_overrides
from pipeline.preprocessing.qc_summary import read_qc, reason_counts, summary_lines, worst
from pipeline.preprocessing.run import PreprocessSummary, preprocess_cohort
from pipeline.stores.volumes import open_volumes
from schemas.errors import ContractError, ParamsError, PipelineError
from schemas.params import QcParams
from stages.cli import app
from stages.scaffold import scaffold
from tests.support.command_line import store_digest
from tests.support.fake_chain import PARAMS, SHAPE, Chain
from tests.support.imaging_fixtures import save

KINDS = {"sub-a": "good", "sub-b": "good!", "sub-c": "odd", "sub-d": "wrong", "sub-e": "broken"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Chain:
    fake = Chain()
    monkeypatch.setattr(chain, "preprocess_scan", fake)
    return fake


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two good scans, one that warns, one that fails, one that cannot be read."""
    from pipeline.cohort.ingest import build_manifest
    from pipeline.cohort.manifest import write_manifest
    from schemas.params import CohortParams

    for name, content in KINDS.items():
        (tmp_path / f"{name}_T1w.nii").write_text(content)
    manifest, _ = build_manifest(CohortParams(source="folder"), input_path=tmp_path)
    write_manifest(manifest, tmp_path / "manifest.csv")
    return tmp_path


def run(study: Path, **overrides: tuple[str, str]) -> PreprocessSummary:
    from pipeline.cohort.manifest import read_manifest

    return preprocess_cohort(
        read_manifest(study / "manifest.csv"),
        PARAMS,
        manifest_dir=study,
        out=study / "v.zarr",
        qc_csv=study / "qc.csv",
        quarantine_csv=study / "quarantine.csv",
        prior_quarantine=pd.DataFrame(),
        workers=1,
        overrides={f"sub-{k}": Override(*v) for k, v in overrides.items()},
    )


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["qc", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def scans_in(study: Path) -> set[str]:
    return set(open_volumes(study / "v.zarr").attributes.scan_ids)


def test_set_to_fail_is_quarantined_with_the_reason(study: Path, fake: Chain) -> None:
    run(study, a=("fail", "motion"))
    assert scans_in(study) == {"sub-b", "sub-c"}
    quarantine = pd.read_csv(study / "quarantine.csv").set_index("scan_id")
    assert quarantine.loc["sub-a", "reason"] == "set by hand: motion"
    qc = pd.read_csv(study / "qc.csv").set_index("scan_id")
    assert (qc.loc["sub-a", "status"], qc.loc["sub-a", "measured"]) == ("fail", "pass")


def test_set_to_pass_stays_and_taking_it_back_gives_the_old_bytes(study: Path, fake: Chain) -> None:
    run(study)
    before = store_digest(study / "v.zarr")
    fake.calls.clear()
    assert run(study, d=("pass", "looked at"), c=("pass", "fine")).warned == 0
    assert fake.calls == ["sub-d_T1w.nii"]
    assert scans_in(study) == {"sub-a", "sub-b", "sub-c", "sub-d"}
    qc = pd.read_csv(study / "qc.csv").set_index("scan_id")
    assert qc.loc["sub-d", "status"] == "pass"
    assert qc.loc["sub-d", "reasons"].startswith("set by hand: looked at; correlation")
    run(study)
    assert store_digest(study / "v.zarr") == before


def test_what_has_no_volume_cannot_pass(
    study: Path, fake: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    run(study, e=("pass", "please"))
    assert "sub-e" not in scans_in(study)
    assert "sub-e: set to pass, but it has no volume" in caplog.text


def test_a_warning_names_the_file_beside_the_id_made_of_it(
    study: Path, fake: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    run(study)
    assert f"sub-e ({study / 'sub-e_T1w.nii'}): " in caplog.text


def test_reasons_name_every_scan_when_asked(study: Path, fake: Chain) -> None:
    from pipeline.preprocessing.qc_summary import reason_counts

    table = pd.DataFrame({"status": ["warn"] * 5, "reasons": ["dark"] * 5}, index=list("vwxyz"))
    assert reason_counts(table) == {"dark": list("vwxyz")}
    run(study)
    path = study / "qc.csv"
    rows = path.read_text().splitlines()
    copies = [rows[3].replace("sub-c", f"sub-c{i}") for i in range(5)]
    path.write_text("\n".join([*rows, *copies]) + "\n")
    assert "sub-c, sub-c0, sub-c1 and 3 more (--verbose lists all)" in invoke("--table", path)
    assert "sub-c, sub-c0, sub-c1, sub-c2, sub-c3, sub-c4)" in invoke("--table", path, "--verbose")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "unreadable table"),
        ("scan_id,state,reason\nsub-1,fail,x\n", "no column status; .*scan_id,status,reason"),
        ("scan_id,status,reason\nsub-1,bad,x\n", "row 2: sub-1: status is 'bad', expected one of"),
        ("scan_id,status,reason\nsub-1,fail,\n", "row 2: sub-1: no reason given"),
        ("scan_id,status,reason\n,fail,x\n", "row 2 has no scan_id"),
        ("scan_id,status,reason\nsub-1,fail,x\nsub-1,pass,y\n", "row 3: sub-1 stands there twice"),
    ],
)
def test_faults_of_the_overrides_are_named(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "qc_overrides.csv"
    path.write_text(text)
    with pytest.raises(ContractError, match=expected) as raised:
        read_overrides(path)
    assert "\n" not in str(raised.value)


def test_overrides_may_be_absent_or_empty_and_keep_further_columns(tmp_path: Path) -> None:
    path = tmp_path / "qc_overrides.csv"
    assert read_overrides(path) == {}
    path.write_text("scan_id,status,reason,who\n001,fail,motion,AB\n")
    assert read_overrides(path) == {"001": Override("fail", "motion")}
    write_overrides(path, read_overrides(path) | {"000": Override("pass", "a, b")})
    assert path.read_text() == 'scan_id,status,reason,who\n000,pass,"a, b",\n001,fail,motion,AB\n'


def test_unknown_scan_is_refused_by_preprocess(study: Path, fake: Chain) -> None:
    (study / "o.csv").write_text("scan_id,status,reason\nsub-aa,fail,x\n")
    tables = {"--manifest": "manifest.csv", "--out": "v.zarr", "--qc": "q", "--quarantine": "r"}
    options = [text for name, file in tables.items() for text in (name, str(study / file))]
    result = CliRunner().invoke(app, ["preprocess", *options, "--overrides", str(study / "o.csv")])
    assert isinstance(result.exception, ContractError)
    assert "no scan sub-aa; did you mean sub-a?" in str(result.exception)
    assert not fake.calls


def test_summary_counts_reasons_and_worst(study: Path, fake: Chain) -> None:
    run(study)
    table = read_qc(study / "qc.csv")
    by_hand = {"sub-a": Override("fail", "motion")}
    text = "\n".join(summary_lines(table, by_hand, QcParams(), count=2))
    assert "5 scans: 2 pass, 1 warn, 1 fail, 1 error" in text
    assert "ncc        sub-d 0.1, sub-c 0.3  (median 0.5, doubted below 0.4)" in text
    assert "sub-a: fail (motion), not applied yet" in text
    counts = reason_counts(table)
    assert counts["correlation with the template …, usual is … or more"] == ["sub-c"]
    assert counts["truncated gzip: the file ends early; copy it again"] == ["sub-e"]


def test_worst_looks_at_both_ends_of_two_sided_numbers() -> None:
    table = pd.DataFrame({"brain_ml": [1400, 700, 1390, 2500, 1410], "ncc": [0.5, 0.9, 0, 1, 0.4]})
    assert list(worst(table, "brain_ml", 2)) == [2500, 700]
    assert list(worst(table, "ncc", 2)) == [0, 0.4]


def test_worst_names_no_scan_that_is_as_good_as_the_rest() -> None:
    table = pd.DataFrame({"coverage": [1.0, 1, 1, 0.8], "turned": [5.0, 0, 6, 40]})
    assert list(worst(table, "coverage", 3)) == [0.8]
    assert list(worst(table, "turned", 3)) == [40, 6]


def test_command_marks_unmarks_and_refuses(study: Path, fake: Chain) -> None:
    run(study)
    files = ("--table", study / "qc.csv", "--overrides", study / "o.csv")
    assert "2 pass" in invoke(*files)
    invoke(*files, "--mark", "sub-a=fail:motion: ringing", "--mark", "sub-c=pass:fine")
    assert read_overrides(study / "o.csv")["sub-a"] == Override("fail", "motion: ringing")
    invoke(*files, "--unmark", "sub-a")
    assert set(read_overrides(study / "o.csv")) == {"sub-c"}
    for mark, error in (
        ("sub-c", ParamsError),
        ("sub-c=fail", ParamsError),
        ("sub-c=bad:x", PipelineError),
        ("sub-x=fail:x", ContractError),
    ):
        with pytest.raises(error):
            invoke(*files, "--mark", mark)
    assert set(read_overrides(study / "o.csv")) == {"sub-c"}
    with pytest.raises(ContractError, match="no such QC table"):
        invoke("--table", study / "none.csv")


@pytest.mark.slow
def test_sheets_for_what_is_doubted(
    study: Path, fake: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    inside = np.ones(SHAPE, bool)
    monkeypatch.setattr(sheets, "load_template", lambda grid: asked.append(grid) or (0, inside))
    save(study / "real.nii")
    run(study)
    table = read_qc(study / "qc.csv")
    table.loc["sub-d", "path"] = str(study / "real.nii")
    store = open_volumes(study / "v.zarr")
    written = sheets.draw_sheets(table, store, study / "sheets", max_bytes=10**8)
    assert [path.stem for path in written] == ["sub-c", "sub-d"]
    assert sorted(p.name for p in (study / "sheets").iterdir()) == ["sub-c.png", "sub-d.png"]
    assert asked == [PARAMS.grid]
    options = {"max_bytes": 10**8, "every": True}
    written = sheets.draw_sheets(table, store, study / "every", **options)
    assert [path.stem for path in written] == ["sub-a", "sub-b", "sub-c", "sub-d"]


def test_sheet_shows_the_volume_and_the_outline(tmp_path: Path) -> None:
    volume = np.zeros((14, 16, 18), np.uint8)
    volume[3:11, 4:12, 5:13] = 200
    outline = np.zeros(volume.shape, bool)
    outline[5:12, 5:14, 5:14] = True
    draw_sheet(volume, "plain", tmp_path / "a.png")
    draw_sheet(volume, "plain", tmp_path / "b.png", outline=outline)
    plain, drawn = (matplotlib.image.imread(tmp_path / f"{n}.png")[..., :3] for n in "ab")
    coloured = [np.abs(image[..., 0] - image[..., 2]).max() for image in (plain, drawn)]
    assert coloured[0] == 0
    assert coloured[1] > 0.3
    assert plain.max() > 0.9


def test_scaffold_gives_an_empty_list_and_keeps_a_filled_one(tmp_path: Path) -> None:
    (tmp_path / "s" / ".dvc").mkdir(parents=True)  # spares the two calls of dvc
    options = {"preset": "demo", "input_path": None, "overrides": []}
    scaffold(tmp_path / "s", **options, force=False)
    path = tmp_path / "s" / "qc_overrides.csv"
    assert path.read_text() == "scan_id,status,reason\n"
    path.write_text("scan_id,status,reason\nsub-1,fail,x\n")
    scaffold(tmp_path / "s", **options, force=True)
    assert "sub-1" in path.read_text()
