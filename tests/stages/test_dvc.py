"""dvc.yaml: the code that a stage depends on is the code that it reaches by imports."""

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CODE = ("stages", "pipeline", "schemas")
LEFT_OUT = {
    "schemas": "what a stage reads of it are parameters, and those stand under `params`",
    "stages/common_options.py": "the command line, the same for every stage",
    "stages/params_file.py": "the command line",
    "stages/requested_settings.py": "the command line: it refuses and warns",
    "stages/messages.py": "paths in messages",
    "stages/headline.py": "lines printed after the work is done",
    "pipeline/runtime/files.py": "how files are written and locked, not what is in them",
    "pipeline/runtime/progress.py": "progress on the screen",
    "pipeline/runtime/dcm2niix.py": "where that program lies",
}
"""Modules that no stage depends on, because its outputs do not: a change of them redoes nothing."""
DATA = {"pipeline/weights", "pipeline/weights/seen.csv"}
"""Files of the package that are read and not imported."""


def covers(dependency: str, file: str) -> bool:
    """Tell whether a dependency is a file, or a folder that holds it."""
    return file == dependency or file.startswith(f"{dependency}/")


def file_of(module: str) -> str | None:
    """Return the file of a module of this repository; None for a package or another's module."""
    path = Path(*module.split(".")).with_suffix(".py")
    return str(path) if (ROOT / path).is_file() else None


@cache
def imported_by(file: str) -> frozenset[str]:
    """Return the files that a file imports, inside functions too, but not for types alone."""
    tree = ast.parse((ROOT / file).read_text())
    types_alone = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    modules = set()
    for node in ast.walk(tree):
        if id(node) in types_alone:
            continue
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {module for module in modules if module.split(".")[0] in CODE}
    return frozenset(file for module in ours if (file := file_of(module)) is not None)


def reached(stage: str) -> set[str]:
    """Return the files that the file of a stage reaches, without those left out."""
    files, waiting = set(), [f"stages/{stage}.py"]
    while waiting:
        file = waiting.pop()
        if file in files or any(covers(out, file) for out in LEFT_OUT):
            continue
        files.add(file)
        waiting += imported_by(file)
    return files


def code_of(stage: str) -> list[str]:
    """Return those dependencies of a stage that are code, or come with it."""
    return [d for d in DVC[stage]["deps"] if d.split("/")[0] in CODE]


@pytest.mark.parametrize("stage", DVC)
def test_a_stage_depends_on_all_code_that_it_reaches_and_on_no_other(stage):
    files, dependencies = reached(stage), code_of(stage)
    missing = {file for file in files if not any(covers(d, file) for d in dependencies)}
    assert not missing, f"dvc.yaml, deps of {stage}: add what covers {sorted(missing)}"
    needless = {d for d in dependencies if not any(covers(d, file) for file in files)} - DATA
    assert not needless, f"dvc.yaml, deps of {stage}: {sorted(needless)} is not reached"


def test_what_is_left_out_is_there():
    assert not [name for name in [*LEFT_OUT, *DATA] if not (ROOT / name).exists()]


@pytest.mark.parametrize("file", ["templates/report.css", "sections/wording.py"])
def test_a_change_of_the_page_redoes_the_report_alone(file):
    changed = f"pipeline/report/{file}"
    assert (ROOT / changed).is_file()
    redone = [stage for stage in DVC if any(covers(d, changed) for d in code_of(stage))]
    assert redone == ["report"]
