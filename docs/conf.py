"""Sphinx: pages from Markdown, reference pages from docstrings and from the command line itself."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

from cli_reference import cli_markdown  # noqa: E402
from sphinx.ext.napoleon import NumpyDocstring  # noqa: E402

from pipeline import __version__  # noqa: E402

project = "ldae-pipeline"
author = copyright = "the ldae-pipeline developers"  # noqa: A001
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ldae-pipeline {release}"
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

napoleon_google_docstring = False
# Napoleon takes "words: text" below an attribute for its type; ours is text alone.
NumpyDocstring._parse_attribute_docstring = lambda self: list(self._lines)
autodoc_member_order = "bysource"
autodoc_typehints = "none"
# Nobody writes these any more, and looking for them costs a tenth of the build; so do all members
# of all modules in the sidebar of every page.
autodoc_use_type_comments = False
toc_object_entries = False
# Names of returned values are taken for types, and some are attributes of several classes.
suppress_warnings = ["ref.python"]
apidoc_modules = [
    {
        "path": f"../{package}",
        "destination": f"reference/{package}",
        "max_depth": 3,
        "separate_modules": False,
        "no_headings": False,
        "module_first": True,
    }
    for package in ("pipeline", "schemas")
]

(DOCS / "reference").mkdir(exist_ok=True)
(DOCS / "reference" / "cli.md").write_text(cli_markdown())
