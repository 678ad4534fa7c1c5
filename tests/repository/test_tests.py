"""Tests lie in a folder a room, and no test file needs another."""

import ast
from pathlib import Path

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


def test_no_file_imports_a_test_file() -> None:
    test_files = (".test_", ".conftest")
    imports = {file: imported(file) for file in FILES}
    assert not [
        (str(file), name)
        for file, names in imports.items()
        for name in names
        if name.startswith("tests.") and any(word in name for word in test_files)
    ]


def test_slow_is_said_of_a_test_and_not_of_its_file() -> None:
    assert not [
        str(file)
        for file in FILES
        for statement in ast.parse(file.read_text()).body
        if isinstance(statement, ast.Assign)
        and ast.unparse(statement).startswith("pytestmark")
        and "slow" in ast.unparse(statement)
    ]
