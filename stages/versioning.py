"""A study under git: set DVC up, and write what commits leave out."""

import configparser
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.files import write_atomic
from schemas.errors import ContractError

DVC_HEADER = "# What DVC need not look at; lines of your own may stand before and after these."
IMAGES = ("/data/cohort/bids/", "/data/cohort/dicom/")
"""Images that the cohort stage makes: phantoms, converted DICOM. They are not cached or shared."""
DVC_LINES = ("__pycache__/", "*.building/", "*.training/", "*.work/", ".*.lock", *IMAGES)
GIT_HEADER = "# What commits leave out: stores, models, images of people, caches. Yours may follow."
GIT_LINES = (
    *("!/params.yaml", "!/dvc.yaml", "!/dvc.lock", "!/qc_overrides.csv"),
    "/data/",
    "/models/*/*",
    "!/models/*/metrics.json",
    "!/models/*/log.csv",
    "/reports/*",
    "!/reports/*/",
    "/reports/*/*",
    "!/reports/*/metrics.json",
    "*.zarr/",
    "*.zarr.input/",
    *("*.nii", "*.nii.gz", "*.mgh", "*.mgz", "*.img", "*.img.gz", "*.hdr", "*.dcm", "*.png"),
    *("*.safetensors", "*.ckpt", "*.pt"),
    *("*.log", "slurm-*.out", "lightning_logs/", "/dvc_plots/"),
    *("*.building/", "*.training/", "*.work/", ".*.lock", ".*.partial", "__pycache__/"),
    *("/.dvc/cache/", "/.dvc/tmp/", "/.dvc/config.local"),
)
KEPT = (
    "params.yaml",
    "dvc.yaml",
    "dvc.lock",
    "qc_overrides.csv",
    "models/ldae/metrics.json",
    "reports/evaluate/metrics.json",
)
"""What a commit of a study should hold: its inputs of ours, and the figures to compare."""


@dataclass(frozen=True, slots=True)
class GitTree:
    """The git work tree around a folder; `root` is None where there is none to be used."""

    root: Path | None
    reason: str = ""
    """Why a tree that is there is not used."""


def git_tree(study: Path) -> GitTree:
    """Return the git work tree that a study lies in: checkout, worktree or submodule."""
    try:
        answer = _git(study, "rev-parse", "--is-inside-work-tree", "--show-toplevel")
    except FileNotFoundError:
        around = any((folder / ".git").exists() for folder in (study, *study.resolve().parents))
        return GitTree(None, "the program git is not installed" if around else "")
    if answer.returncode:
        refused = "not a git repository" not in answer.stderr
        reason = next(iter(answer.stderr.strip().splitlines()), "git failed")
        # --show-toplevel fails within .git itself, where no work tree is.
        inside_git_folder = "must be run in a work tree" in reason
        return GitTree(None, reason if refused and not inside_git_folder else "")
    root = Path(answer.stdout.splitlines()[1])
    if _git(study, "check-ignore", "--quiet", "--no-index", ".").returncode == 0:
        return GitTree(None, f"git of {root} ignores this folder")
    return GitTree(root)


def connect(study: Path, data: Path | None) -> list[str]:
    """Set DVC up with git or without, as the folder is, and write .gitignore and .dvcignore.

    `data` is what the study reads; inside the study it is left out of commits too. Returns
    sentences for the user.

    Raises
    ------
    ContractError
        If DVC refuses the folder.
    """
    tree = git_tree(study)
    if not (study / ".dvc").is_dir():
        way = ["--no-scm"] if tree.root is None else _subfolder(study, tree.root)
        _dvc(study, "init", "--quiet", *way)
        _dvc(study, "config", "core.analytics", "false")
    elif _without_git(study) not in (None, tree.root is None):
        change = ["core.no_scm", "true"] if tree.root is None else ["--unset", "core.no_scm"]
        _dvc(study, "config", *change)
    lines = [*GIT_LINES, *_pattern_of(study, data)]
    put_lines(study / ".gitignore", GIT_HEADER, lines)
    put_lines(study / ".dvcignore", DVC_HEADER, DVC_LINES)
    if tree.root is None:
        why = f" ({tree.reason})" if tree.reason else ""
        return [f"no git here{why}: for versions, `git init` and `pipeline init {study}` once more"]
    return _sentences(study, tree.root)


def needs_connecting(study: Path) -> bool:
    """Return whether a study came under git, or left it, since DVC was set up in it."""
    without = _without_git(study)
    return without is not None and without != (git_tree(study).root is None)


def put_lines(path: Path, header: str, lines: "list[str] | tuple[str, ...]") -> None:
    """Write our lines beneath their header into a file; every other line stays where it is."""
    existing = path.read_text().splitlines() if path.is_file() else []
    if header in existing:
        place = existing.index(header)
        before = existing[:place]
        after = [line for line in existing[place + 1 :] if line not in lines]
    else:
        before, after = existing, []
    write_atomic(path, "\n".join([*before, header, *lines, *after]) + "\n")


def _sentences(study: Path, root: Path) -> list[str]:
    """Return what git takes of the study, and what is in the way."""
    told = [f"git ({root}): parameters, locks and metrics are for commits; .gitignore has the rest"]
    ignored = _git(study, "check-ignore", "--no-index", "--verbose", "--non-matching", *KEPT)
    for line in ignored.stdout.splitlines():
        rule, _, name = line.partition("\t")
        pattern = rule.split(":", 2)[-1]
        if pattern and not pattern.startswith("!"):
            told.append(f"{name} is left out of commits by {rule}; take that line away to keep it")
    return told


def _pattern_of(study: Path, data: Path | None) -> list[str]:
    """Return the line of .gitignore for scans that lie inside the study."""
    if data is None:
        return []
    inside = os.path.relpath(os.path.normpath(study.absolute() / data), study.absolute())
    if inside.startswith("..") or inside == ".":
        return []
    escaped = re.sub(r"([\\*?\[\]#! ])", r"\\\1", inside)
    return [f"/{escaped}"]


def _subfolder(study: Path, root: Path) -> list[str]:
    return [] if study.resolve() == root.resolve() else ["--subdir"]


def _without_git(study: Path) -> bool | None:
    """Return whether DVC was set up without git; None where it was not set up."""
    config = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        config.read_string((study / ".dvc" / "config").read_text())
    except (FileNotFoundError, configparser.Error):
        return None
    return config.get("core", "no_scm", fallback="false").strip().lower() == "true"


def _git(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"LC_ALL": "C"}
    return subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def _dvc(study: Path, *words: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=study,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        why = (result.stderr or result.stdout).strip().splitlines()
        raise ContractError(
            f"{study}: `dvc {' '.join(words)}` failed: {why[0] if why else 'without a word'}"
        )
