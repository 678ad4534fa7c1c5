"""docs/architecture.md against the code: the rooms that it names, and who imports whom."""

import ast
import re
from pathlib import Path

from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = ("pipeline", "stages", "schemas")


def room_of(module: str) -> str | None:
    """`pipeline.imaging.bias` is in the room `imaging`; `pipeline.runtime` is a room."""
    top, *rest = module.split(".")
    if top not in PACKAGES:
        return None
    return rest[0] if top == "pipeline" and rest else top


def imports_of(path: Path) -> set[str]:
    """Rooms that a file imports, also inside functions; `from pipeline import x` names x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {room for module in found if (room := room_of(module))}


def real_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            room = room_of(module.removesuffix(".__init__"))
            assert room is not None
            graph.setdefault(room, set()).update(imports_of(path) - {room})
    graph.pop("pipeline")  # __init__.py alone: the version
    return {room: arrows - {"pipeline"} for room, arrows in graph.items()}


def written_graph() -> dict[str, set[str]]:
    """The table `| room | imports | holds |`."""
    rows = re.findall(r"^\| `([\w/.]+)` \| (.*?) \|", TEXT, re.MULTILINE)
    return {
        name.removeprefix("pipeline/").removesuffix(".py"): set(re.findall(r"`(\w+)`", arrows))
        for name, arrows in rows
    }


def test_rooms_and_arrows_are_those_of_the_code():
    real, written = real_graph(), written_graph()
    assert set(written) == set(real), "rooms in docs/architecture.md"
    wrong = [room for room in real if real[room] != written[room]]
    assert not wrong, "as it is:\n" + "\n".join(table_row(room, real[room]) for room in wrong)


def table_row(room: str, arrows: set[str]) -> str:
    return f"| `{room}` | {', '.join(f'`{a}`' for a in sorted(arrows)) or '–'} |"
