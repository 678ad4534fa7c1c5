"""docs/architecture.md against the contract of rooms in pyproject.toml, and against the folders."""

import re
import tomllib

from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text()
PICTURE = TEXT.split("## The house")[1].split("```")[1]
MAX_FILES = 20
MAX_SHARE = 0.13
MAX_EVALUATION_LINES = 1600


def floors_of_the_contract() -> list[set[str]]:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    contracts = tool["importlinter"]["contracts"]
    (rooms,) = [c for c in contracts if c.get("containers") == ["pipeline"]]
    assert rooms["exhaustive"]
    return [set(re.findall(r"\w+", floor)) for floor in rooms["layers"]]


def folders() -> set[str]:
    return {f.parent.name for f in (ROOT / "pipeline").glob("*/__init__.py")}


def lines_of(room: str) -> int:
    files = (ROOT / "pipeline" / room).rglob("*.py")
    return sum(len(file.read_text().splitlines()) for file in files)


def test_the_picture_shows_the_floors_of_the_contract():
    """A line of the picture is a floor; where rooms are described, the first word is the room."""
    floors = floors_of_the_contract()
    names = set().union(*floors)
    shown = []
    for line in PICTURE.splitlines():
        columns = re.split(r"\s{2,}", line.strip())
        if rooms := {word for word in columns if word in names}:
            shown.append(rooms)
    assert shown == floors


def test_every_room_has_its_floor_and_its_paragraph():
    described = set(re.findall(r"^\*\*`(\w+)`\*\*", TEXT, re.MULTILINE))
    floors = set().union(*floors_of_the_contract())
    assert described == floors == folders()


def test_no_room_is_crowded():
    for folder in {f.parent for f in (ROOT / "pipeline").rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= MAX_FILES, folder
    total = sum(map(lines_of, folders()))
    assert max(lines_of(room) / total for room in folders()) <= MAX_SHARE
    assert lines_of("evaluation") <= MAX_EVALUATION_LINES
