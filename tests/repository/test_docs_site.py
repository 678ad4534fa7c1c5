"""The documentation builds without a warning, and its reference is the application's."""

import sys

import pytest
from sphinx.cmd.build import build_main

from stages.cli import STAGES, TOOLS
from tests.support.paths import ROOT


def test_every_command_and_option_is_in_the_reference(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from cli_reference import cli_markdown

    text = cli_markdown()
    for name in (*STAGES, *TOOLS):
        assert f"\n## pipeline {name}\n" in text
    for option in ("--input", "--overrides", "--sampler", "--scheduler", "--what", "--list"):
        assert f"| `{option}` |" in text
    assert "One of `mni`, `native`." in text


def test_manifest_columns_are_documented():
    from schemas.manifest import MANIFEST_COLUMNS

    text = (ROOT / "docs" / "file-formats.md").read_text()
    for column, meaning in MANIFEST_COLUMNS.items():
        assert f"| `{column}` |" in text, column
        assert meaning.split(",")[0] in text.replace("`", ""), meaning


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path, monkeypatch, capfd):
    """In this process, which has imported already what the reference is of."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    strict = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    failed = build_main([*strict, str(ROOT / "docs"), str(tmp_path / "html")])
    assert not failed, capfd.readouterr().err
    for page in ("index", "faq", "reference/cli", "reference/pipeline/pipeline.stores"):
        assert (tmp_path / "html" / f"{page}.html").is_file()
