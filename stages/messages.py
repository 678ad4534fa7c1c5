"""Paths in messages, relative to the working folder; addresses with both slashes."""

import re
from pathlib import Path

_ADDRESS = re.compile(r"\b(s3|gs|https?|hf):/(?=[^/\s])")
"""An address that went through a Path, which drops the second slash."""
_BACK = re.compile(r"(?P<before>[^\s:'\"(]*?)(?P<name>[^/\s:'\"(]+)/\.\./")


def from_here(text: str) -> str:
    """Return a message whose paths are relative to the working folder, without `x/..`.

    Paths outside it stay absolute. A link is not stepped back over: its `..` is another folder.
    """
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # the folder was removed meanwhile
        return text
    text = _ADDRESS.sub(r"\1://", text)
    before = ""
    while before != text:
        before, text = text, _BACK.sub(_stepped_back, text)
    if here == "/":
        return text
    return re.sub(rf"(?<![\w/.~-]){re.escape(here)}/(?=\S)", "", text)


def _stepped_back(match: re.Match[str]) -> str:
    before, name = match["before"], match["name"]
    if name == ".." or Path(before + name).is_symlink():
        return match[0]
    return before
