"""What the wheel carries of README and docs/, so that every link works without the repository."""

import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = "stages/pages"
SHOWN = {".md", ".png", ".html", ".yaml"}
MADE = {"_build", "reference"}
PICTURE = re.compile(r"!\[([^\]]*)\]\(docs/[^)]*\)")
LINK = re.compile(r"\[([^\]]*)\]\(docs/([\w-]+)\.md(?:#[^)]*)?\)")


def long_description(readme: str) -> str:
    """Return README without links into the repository: pages are named by their command."""
    text = PICTURE.sub(r"*(picture: \1)*", readme)
    return LINK.sub(_command, text)


def _command(link: re.Match[str]) -> str:
    words, page = link.groups()
    command = f"`pipeline docs {page}`"
    return command if words == f"docs/{page}.md" else f"{words} ({command})"


class ReadmeHook(MetadataHookInterface):
    """The README that package indexes and metadata show."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the field `readme`."""
        text = long_description((Path(self.root) / "README.md").read_text())
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


class PagesHook(BuildHookInterface[Any]):
    """The pages that `pipeline docs` prints, with their pictures."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Lay README and docs/ side by side in the wheel; an editable one has the repository."""
        if version == "editable":
            return
        root, docs = Path(self.root), Path(self.root) / "docs"
        included = build_data["force_include"]
        for path in sorted(docs.rglob("*")):
            inside = path.relative_to(docs)
            if path.suffix in SHOWN and inside.parts[0] not in MADE and path.name != "index.md":
                included[str(path)] = f"{PAGES}/{inside}"
        self.made = tempfile.TemporaryDirectory()
        readme = (root / "README.md").read_text().replace("](docs/", "](")
        params = (docs / "params.md").read_text()
        block = re.search(r"```\{literalinclude\}.*?```", params, re.DOTALL)
        assert block, "docs/params.md shows params.yaml"
        listing = f"```yaml\n{(root / 'params.yaml').read_text()}```"
        del included[str(docs / "params.md")]
        for name, text in (
            ("README.md", readme),
            ("params.md", params.replace(block[0], listing)),
        ):
            path = Path(self.made.name) / name
            path.write_text(text)
            included[str(path)] = f"{PAGES}/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was made for the wheel."""
        if version != "editable":
            self.made.cleanup()
