"""`pipeline explore` as a user types it."""

import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from stages.cli import app
from tests.support.command_line import environment
from tests.support.explore_study import TOWARDS
from tests.support.volumes import SCAN


def error_of(*words):
    result = CliRunner().invoke(app, ["explore", *words])
    assert result.exit_code
    return f"{result.exception}"


def test_what_is_no_study_is_one_line(tmp_path):
    assert "no such folder" in error_of(str(tmp_path / "nothing"))
    assert "run `pipeline cohort`" in error_of(str(tmp_path))
    assert "--scan goes with --export" in error_of(str(tmp_path), "--scan", "a")


def test_without_the_extra_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'ldae-pipeline[explore]'" in error_of(str(tmp_path))


@pytest.mark.slow
def test_the_file_is_written_where_it_is_asked_for(study_folder, tmp_path, monkeypatch):
    """Paths are those of the folder where the command is typed, not of the study."""
    monkeypatch.chdir(tmp_path)
    words = ["explore", str(study_folder), "--export", "page.html", "--scan", SCAN, "--places", "3"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert f"move|{SCAN}|{TOWARDS}|-3" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_the_page_is_served_until_it_is_stopped(study_folder, tmp_path):
    before = sorted(p for p in study_folder.rglob("*") if ".zarr" not in str(p))
    command = [sys.executable, "-m", "stages.cli", "explore", str(study_folder), "--port", "8950"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        line = next(line for line in lines if line.startswith("explore: "))
        found = re.fullmatch(r"explore: (http://127\.0\.0\.1:\d+/)\?token=([\w-]{20,})\n", line)
        assert found, line
        request = urllib.request.Request(
            f"{found[1]}api/volume?scan={SCAN}", headers={"x-explore-token": found[2]}
        )
        with urllib.request.urlopen(request) as answer:
            assert len(answer.read()) == 16 * 24 * 20
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert sorted(p for p in study_folder.rglob("*") if ".zarr" not in str(p)) == before
