"""Every command and snippet in README and docs is run against a tiny study.

A block that no test machine can run carries `<!-- not run: why -->` above it; its `pipeline` lines
must still parse.
"""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from stages.cli import app
from tests.support.paths import ROOT
from tests.support.tiny_study import TINY_OPTIONS, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = {"text", "yaml"}
RUN = {"bash", "python"}
MADE_BY_REPRO = ("data", "models", "reports", "qc_overrides.csv")
"""A new study takes these from the shared one; tests/stages/test_end_to_end.py runs `dvc repro`."""

FEW_STEPS = ["--steps", "2"]
EXTRA = {"init": TINY_OPTIONS} | dict.fromkeys(
    ("reconstruct", "vary", "manipulate", "interpolate", "generate"), FEW_STEPS
)
"""Options that the test adds, so that everything stays tiny."""


@dataclass(frozen=True)
class Block:
    language: str
    body: str
    runs: bool

    def commands(self) -> Iterator[list[str]]:
        for line in self.body.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def blocks_of(page: Path) -> list[Block]:
    found = [Block(m[2], m[3], not m[1]) for m in BLOCK.finditer(page.read_text())]
    return [block for block in found if not block.language.startswith("{")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_blocks_say_what_they_are_and_commands_parse(page):
    group = typer.main.get_command(app)
    for block in blocks_of(page):
        assert block.language in SHOWN | RUN, f"{page.name}: ```{block.language}"
        if block.language != "bash":
            continue
        for words in block.commands():
            inner = _command_within(words)
            if inner[0] == "pipeline":
                group.commands[inner[1]].make_context(inner[1], inner[2:])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_read_parameters_from_the_users_folder(page):
    """Presets lie in the package: `pipeline init --preset` brings one, `params/NAME.yaml` fails."""
    commands = [w for b in blocks_of(page) if b.language == "bash" for w in b.commands()]
    files = [w[w.index("--params") + 1] for w in commands if "--params" in w]
    assert not [file for file in files if "/" in file]


def _command_within(words: list[str]) -> list[str]:
    """What sbatch or torchrun would start."""
    if "--wrap" in words:
        return shlex.split(words[words.index("--wrap") + 1])
    if "stages.cli" in words:
        return ["pipeline", *words[words.index("stages.cli") + 1 :]]
    return words


class Shell:
    """Runs the commands of one page, `pipeline` in this process: its imports are paid once."""

    def __init__(self, tiny_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tiny_study = tiny_study
        self.monkeypatch = monkeypatch

    def run(self, words: list[str]) -> None:
        handler = getattr(self, f"_{words[0]}", None)
        assert handler, f"{words[0]}: mark the block as not run, or teach the test to run it"
        handler(words[1:])

    def _pipeline(self, words: list[str]) -> None:
        words = words + EXTRA.get(words[0], [])
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{shlex.join(words)}: {result.output} {result.exception}"

    def _cd(self, words: list[str]) -> None:
        self.monkeypatch.chdir(words[0])

    def _dvc(self, words: list[str]) -> None:
        if words[0] != "repro":
            self._program("dvc", *words)
            return
        assert set(words[1:]) <= set(yaml.safe_load(Path("dvc.yaml").read_text())["stages"])
        for name in MADE_BY_REPRO:
            _copy(self.tiny_study / name, Path(name))
        if _under_git():  # what compares versions needs to find that a run has ended
            self._program("dvc", "commit", "--force", "--quiet")

    def _git(self, words: list[str]) -> None:
        self._program("git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words)

    def _program(self, *words: str) -> None:
        result = run(*words, cwd=Path.cwd())
        assert result.returncode == 0, f"{shlex.join(words)}: {result.stdout} {result.stderr}"

    def _make(self, words: list[str]) -> None:
        subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)

    def _pip(self, words: list[str]) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert words[0] == "install"
        for extra in re.findall(r"\[(\w+)\]", words[-1]):
            assert extra in project["optional-dependencies"]


def _under_git() -> bool:
    return run("git", "rev-parse", "--is-inside-work-tree", cwd=Path.cwd()).returncode == 0


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _furnish(folder: Path, tiny_study: Path, *, finished: bool) -> None:
    """Lay out what the pages speak of: bids, nifti, head.nii.gz, and a finished study or none."""
    if finished:
        shutil.copytree(tiny_study, folder, dirs_exist_ok=True)
    (folder / "bids").symlink_to(tiny_study / "data" / "cohort" / "bids")
    scan = next((folder / "bids").rglob("sub-002_ses-M00_T1w.nii.gz"))
    (folder / "nifti").mkdir()
    shutil.copy(scan, folder / "nifti")
    shutil.copy(scan, folder / "head.nii.gz")
    (folder / "people.csv").write_text("ID,scan,DX\n1,head.nii.gz,AD\n")


def _runnable(page: Path) -> list[Block]:
    return [b for b in blocks_of(page) if b.runs and b.language in RUN]


@pytest.mark.slow
@pytest.mark.parametrize("page", filter(_runnable, PAGES), ids=lambda p: p.stem)
def test_commands_and_snippets_run(page, tiny_study, tmp_path, monkeypatch):
    blocks = _runnable(page)
    monkeypatch.chdir(tmp_path)
    starts_a_study = any("pipeline init" in b.body for b in blocks)
    _furnish(tmp_path, tiny_study, finished=not starts_a_study)
    shell = Shell(tiny_study, monkeypatch)
    for block in blocks:
        if block.language == "python":
            _exec(block.body)
            continue
        for words in block.commands():
            shell.run(words)


def _exec(code: str) -> None:
    try:
        exec(compile(code, "<snippet>", "exec"), {})
    except ModuleNotFoundError:
        if "not a dependency" not in code:
            raise
