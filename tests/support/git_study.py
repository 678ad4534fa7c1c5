"""git, and `pipeline init`, as tests of studies under git call them."""

import subprocess
from pathlib import Path

from typer.testing import CliRunner

from stages.cli import app

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always")


def git(folder: Path, *words: str) -> str:
    command = ["git", *IDENTITY, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def init(*words: str | Path) -> str:
    made = CliRunner().invoke(app, ["init", *map(str, words)])
    assert made.exit_code == 0, f"{made.output} {made.exception}"
    return made.output
