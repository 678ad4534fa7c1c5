"""A study under git: what `pipeline init` sets up, and what a commit then holds."""

import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.errors import ContractError
from stages.cli import app
from stages.versioning import GIT_HEADER, put_lines
from tests.support.command_line import environment
from tests.support.git_study import git, init
from tests.support.imaging_fixtures import save

MADE = (
    "data/cohort/manifest.csv",
    "data/volumes.zarr/volume/c/0",
    "data/qc.csv",
    "data/.volumes.zarr.lock",
    "models/ae/model.safetensors",
    "models/ldm.training/last.ckpt",
    "models/ldae/config.json",
    "reports/report.html",
    "reports/evaluate/pictures/sub-1.png",
    "reports/evaluate/per_scan/a.parquet",
    "made/sub-1.nii.gz",
    "made/sub-1.png",
    "more/latents.zarr/zarr.json",
    "more/latents.input/volumes.zarr/zarr.json",
    "slurm-12.out",
    "train.log",
    "dvc_plots/index.html",
    ".dvc/cache/files/md5/00/1",
    ".dvc/tmp/lock",
    ".dvc/config.local",
)
CONTENT = {".json": "{}", ".lock": "schema: '2.0'\nstages: {}\n"}
FOR_COMMITS = {
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    "dvc.lock",
    "dvc.yaml",
    "models/ldm/log.csv",
    "models/ldm/metrics.json",
    "params.yaml",
    "qc_overrides.csv",
    "reports/evaluate/metrics.json",
    "reports/probe/metrics.json",
}


def dvc(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["dvc", *words], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tree(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "first")
    return folder


def fill(study: Path) -> None:
    """Lay out what the stages make."""
    for name in (*MADE, *FOR_COMMITS):
        path = study / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(CONTENT.get(path.suffix, ""))


def root_of_a_tree(base: Path) -> Path:
    return tree(base / "study")


def subfolder(base: Path) -> Path:
    return tree(base / "group") / "my studies" / "study"


def worktree(base: Path) -> Path:
    git(tree(base / "group"), "worktree", "add", "--quiet", str(base / "other"))
    return base / "other" / "study"


def submodule(base: Path) -> Path:
    tree(base / "part")
    group = tree(base / "group")
    git(group, "submodule", "--quiet", "add", str(base / "part"), "study")
    return group / "study"


@pytest.mark.parametrize(
    "place",
    [
        subfolder,
        *(pytest.param(p, marks=pytest.mark.slow) for p in (root_of_a_tree, worktree, submodule)),
    ],
)
def test_a_commit_of_a_study_holds_parameters_and_metrics_and_no_scan(place, tmp_path):
    study = place(tmp_path)
    init(study)
    assert "no_scm" not in (study / ".dvc" / "config").read_text()
    fill(study)
    git(study, "add", "-A")
    assert set(git(study, "ls-files").split()) - {".dvc/.gitignore"} == FOR_COMMITS
    assert dvc(study, "metrics", "diff") == ""  # fails where DVC does not see git


@pytest.mark.slow
def test_git_that_comes_later_is_taken_up_and_parameters_stay(tmp_path):
    study = tmp_path / "study"
    told = init(study)
    assert "no_scm = True" in (study / ".dvc" / "config").read_text()
    assert "no git here: for versions, `git init` and `pipeline init" in told
    with pytest.raises(ContractError, match="exists; add --force"):
        CliRunner().invoke(app, ["init", str(study)], catch_exceptions=False)
    parameters = (study / "params.yaml").read_text().replace("steps: 1", "steps: 2")
    (study / "params.yaml").write_text(parameters)
    git(study, "init", "--quiet")
    assert "params.yaml and dvc.yaml are as they were" in init(study)
    assert (study / "params.yaml").read_text() == parameters
    assert "no_scm" not in (study / ".dvc" / "config").read_text()
    fill(study)
    git(study, "add", "-A")
    assert set(git(study, "ls-files").split()) - {".dvc/.gitignore"} == FOR_COMMITS
    git(study, "commit", "--quiet", "-m", "one")
    dvc(study, "params", "diff")


@pytest.mark.slow
def test_a_study_taken_out_of_git_runs_again(tmp_path):
    study = tree(tmp_path / "study")
    init(study)
    (study / ".git").rename(tmp_path / "kept")
    assert "are as they were" in init(study)
    dvc(study, "status")


@pytest.mark.slow
def test_ones_own_lines_of_gitignore_stay(tmp_path):
    study = tree(tmp_path / "study")
    (study / ".gitignore").write_text("secret.txt\n")
    init(study)
    with (study / ".gitignore").open("a") as file:
        file.write("!/data/cohort/table.csv\nnotes/\n")
    (study / ".dvcignore").write_text((study / ".dvcignore").read_text() + "scratch/\n")
    before = (study / ".gitignore").read_text()
    init(study, "--force")
    assert (study / ".gitignore").read_text() == before
    assert before.startswith("secret.txt\n")
    assert before.endswith("!/data/cohort/table.csv\nnotes/\n")
    assert "scratch/" in (study / ".dvcignore").read_text()


def test_our_lines_are_brought_up_to_date_where_they_stand(tmp_path):
    path = tmp_path / ".gitignore"
    path.write_text(f"a\n{GIT_HEADER}\n/old/\n/data/\nmine\n")
    put_lines(path, GIT_HEADER, ["/data/", "/models/"])
    assert path.read_text() == f"a\n{GIT_HEADER}\n/data/\n/models/\n/old/\nmine\n"


def test_scans_inside_the_study_are_left_out_of_commits(tmp_path):
    study = tree(tmp_path / "study")
    heads = study / "my [old] heads"
    heads.mkdir()
    save(heads / "1.nii.gz")
    (heads / "people.xlsx").write_text("names")
    init(study, "--input", heads)
    git(study, "add", "-A")
    listed = git(study, "ls-files")
    assert "heads" not in listed
    assert "params.yaml" in listed


@pytest.mark.slow
def test_a_folder_that_git_ignores_is_a_study_without_git(tmp_path):
    group = tree(tmp_path / "group")
    (group / ".gitignore").write_text("studies/\n")
    study = group / "studies" / "one"
    assert "ignores this folder" in init(study)
    dvc(study, "status")


@pytest.mark.slow
def test_rules_above_that_leave_out_what_a_study_needs_are_outdone_or_told(tmp_path):
    group = tree(tmp_path / "group")
    (group / ".gitignore").write_text("*.yaml\n*.csv\n")
    init(group / "study")
    git(group, "add", "-A")
    assert {"study/params.yaml", "study/dvc.yaml"} <= set(git(group, "ls-files").split())
    (group / "study" / ".gitignore").write_text("models/\n")
    told = init(group / "study", "--force")
    assert "models/ldae/metrics.json is left out of commits by study/.gitignore:1:models/" in told


@pytest.mark.slow
def test_what_dvc_refuses_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / ".dvc").write_text("a file in the way")
    with pytest.raises(ContractError, match=r"`dvc init --quiet --no-scm` failed: "):
        CliRunner().invoke(app, ["init", str(tmp_path / "study")], catch_exceptions=False)
