"""Tests lie in a folder a room, and no test file needs another."""

import ast
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
OTHER_FOLDERS = {"schemas", "stages", "benchmarks", "repository", "support"}
FILES = sorted(TESTS.rglob("*.py"))


def folders_of(path: Path) -> set[str]:
    return {p.name for p in path.iterdir() if (p / "__init__.py").is_file()}


def imported(file: Path) -> set[str]:
    """Return every module that a file may import, and every name from one, as dotted names."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_folder_of_tests_is_named_after_a_room() -> None:
    assert folders_of(TESTS) <= folders_of(ROOT / "pipeline") | OTHER_FOLDERS


def test_every_room_of_the_pipeline_has_tests() -> None:
    with_tests = {file.parent.name for file in TESTS.glob("*/test_*.py")}
    assert folders_of(ROOT / "pipeline") <= with_tests


def test_every_test_file_lies_in_a_room() -> None:
    assert not list(TESTS.glob("test_*.py"))
    assert not list((TESTS / "support").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(TESTS)))
def test_no_file_imports_a_test_file(file: Path) -> None:
    parts = [name.split(".") for name in imported(file) if name.startswith("tests.")]
    assert not [p for p in parts if any(x.startswith(("test_", "conftest")) for x in p)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(TESTS)))
def test_marks_stand_on_tests_and_not_on_files(file: Path) -> None:
    assigned = [s for s in ast.parse(file.read_text()).body if isinstance(s, ast.Assign)]
    assert not [s for s in assigned if ast.unparse(s.targets[0]) == "pytestmark"]
