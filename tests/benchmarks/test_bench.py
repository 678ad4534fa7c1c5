"""The benchmark's own machinery: rows, verdicts, tables. No figure is asserted here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.framework import run
from benchmarks.framework.harness import Timed
from benchmarks.framework.listing import listed_rows
from benchmarks.framework.registry import Measurement, Row, all_rows, compare
from benchmarks.framework.tables import full_text, put_table, short_table
from schemas.errors import ContractError, ParamsError
from stages.cli import app
from tests.support.command_line import environment


def measure_nothing(folder: Path) -> Measurement:
    (folder / "file").write_text("x")
    return Measurement(value=2.5, rounds={"ours": [0.1, 0.2, 0.3]}, note="no work")


def row(**more) -> Row:
    basics = {"name": "n", "what": "w", "against": "a", "measure": measure_nothing, "target": 2}
    return Row(**basics | more)


ROWS = [row(name="stand-in")]


def test_every_row_has_its_own_name_and_they_fit_into_twenty_minutes():
    rows = all_rows()
    assert {"batch", "encode", "help", "repro-noop", "stage-1", "sampling"} <= {
        r.name for r in rows
    }
    assert sum(r.seconds for r in rows if not (r.gpu_only or r.asked)) < 20 * 60


@pytest.mark.parametrize(
    ("unit", "value", "met"),
    [("×", 2.0, True), ("×", 1.9, False), ("s", 1.9, True), ("s", 2.1, False)],
)
def test_less_is_better_only_for_costs(unit, value, met):
    assert row(unit=unit).met(value) is met
    assert row(unit=unit, target=None).met(value) is None


def test_ratio_is_that_of_medians_with_the_spread_of_rounds():
    timed = [Timed("old", None, [4.0, 6.0, 50.0]), Timed("new", None, [2.0, 1.0, 10.0])]
    result = compare(timed, ours="new", against="old", extra=7.0)
    assert result.value == 3.0
    assert result.numbers == {"lowest of a round": 2.0, "highest of a round": 6.0, "extra": 7.0}


@pytest.mark.slow
def test_rows_are_measured_in_a_fresh_process_and_others_results_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "kind_of_machine", lambda: "here")
    (tmp_path / "here.json").write_text(json.dumps({"rows": {"old": {"status": "kept"}}}))
    results = run.run_rows([*ROWS, row(name="gpu", gpu_only=True)], tmp_path)
    assert results == json.loads((tmp_path / "here.json").read_text())
    assert results["rows"]["old"] == {"status": "kept"}
    measured = results["rows"]["stand-in"]
    assert (measured["status"], measured["value"], measured["met"]) == ("measured", 2.5, True)
    assert results["rows"]["gpu"]["status"] == run.NO_GPU


@pytest.mark.slow
def test_a_row_that_fails_says_why_and_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "kind_of_machine", lambda: "here")
    results = run.run_rows([row(name="no such row"), *ROWS], tmp_path)
    assert results["rows"]["no such row"]["status"].startswith("failed: ValueError")
    assert results["rows"]["stand-in"]["status"] == "measured"


def test_unknown_rows_are_refused():
    with pytest.raises(ParamsError, match="--what nonsense: expected some of"):
        run.chosen_rows(["nonsense"])


def test_tables_tell_target_figure_and_verdict(tmp_path):
    shown = {"what": "w", "against": "a", "unit": "s", "target": 0.5, "rounds": {"x": [1.0, 3.0]}}
    measured = shown | {"status": "measured", "value": 0.7, "met": False, "numbers": {}, "note": ""}
    missing = shown | {"status": run.NO_GPU}
    results = {"machine": "a machine", "rows": {"one": measured, "two": missing}}
    table = short_table(results)
    assert "| w | a | ≤ 0.5 s | 0.7 s | **no** |" in table
    assert f"| w | a | ≤ 0.5 s | {run.NO_GPU} | – |" in table
    assert "| x | 2 | 2 | 1–3 |" in full_text(results)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    put_table(readme, results)
    text = readme.read_text()
    assert text.startswith("before\n<!-- bench:begin -->\n| what")
    assert text.endswith("a machine\n<!-- bench:end -->\nafter\n")
    with pytest.raises(ContractError, match="expected <!-- bench:begin -->"):
        put_table(tmp_path / "README.md", results) if readme.write_text("no marks") else None


def test_what_is_listed_from_the_source_are_the_rows():
    listed = [(row.name, row.what, row.seconds) for row in listed_rows()]
    assert listed == [(row.name, row.what, row.seconds) for row in all_rows()]
    with pytest.raises(ParamsError, match="--what nonsense: expected some of"):
        listed_rows(["help", "nonsense"])


def test_list_imports_nothing_that_is_measured():
    code = (
        "import sys; from typer.testing import CliRunner; from stages.cli import app\n"
        "result = CliRunner().invoke(app, ['bench', '--list', '--what', 'help,batch'])\n"
        "assert [line.split()[0] for line in result.output.splitlines()[:2]] == ['help', 'batch']\n"
        "heavy = {'torch', 'monai', 'zarr', 'pandas', 'dask', 'numpy', 'nibabel'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_list_names_the_rows_and_measures_nothing(tmp_path):
    result = CliRunner().invoke(app, ["bench", "--list", "--out", str(tmp_path / "results")])
    assert result.exit_code == 0, result.output
    assert "repro-noop" in result.output
    assert not (tmp_path / "results").exists()
