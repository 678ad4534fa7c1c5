"""Compare two runs of one study: arrays of stores, weights, numbers, and the text of the report.

python -m benchmarks.studies.same_bytes BEFORE AFTER

A line for each thing compared; exit code 1 if anything differs or is missing. Stores are compared
scan by scan, by id, so neither order nor chunks matter. Times, versions and paths are left out.
"""

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from safetensors import safe_open

LEFT_OUT = {"seconds", "throughput", "version", "versions", "path"}
"""Entries of metrics.json that no two runs share."""
UNSHOWN = {"script", "style"}
MINUTES = ("training", 3)
"""Section and column of the minutes that training took."""
SECONDS = re.compile(r"[\d.]+ s|.* [\d.]+ s, [\d.]+ times as long\.")
"""Of the sentence on the pace of a reconstruction."""
Parts = Mapping[str, str]
"""What is compared, by name: the digest of a scan's array, of a tensor, a number, a text."""


def store_parts(path: Path) -> dict[str, Parts]:
    """Return the digest of each scan of each array; of an array without scans, the whole."""
    group = zarr.open_group(path, mode="r")
    ids = [str(scan) for scan in group.attrs["scan_ids"]]
    found = {}
    for name, array in sorted(group.arrays()):
        if array.shape[:1] == (len(ids),):
            rows = ((scan, np.asarray(array[i])) for i, scan in enumerate(ids))
        else:
            rows = iter([("all scans", np.asarray(array[...]))])
        found[name] = {scan: digest(row.tobytes(), row.dtype, row.shape) for scan, row in rows}
    return found


def weight_parts(path: Path) -> Parts:
    """Return the digest of each tensor of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).contiguous() for name in file.keys()}  # noqa: SIM118
    return {
        name: digest(tensor.reshape(-1).view(torch.uint8).numpy().tobytes(), *about(tensor))
        for name, tensor in tensors.items()
    }


def about(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...]]:
    """Return type and shape, which bytes do not tell."""
    return tensor.dtype, tuple(tensor.shape)


def digest(content: bytes, *described: object) -> str:
    """Return the SHA-256 of bytes and of what describes them."""
    return hashlib.sha256(content + repr(described).encode()).hexdigest()


def number_parts(path: Path) -> Parts:
    """Return each entry of a metrics.json by its path of keys."""
    return dict(entries(json.loads(path.read_text())))


def entries(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of a JSON document, without those left out by name."""
    if not isinstance(value, dict | list):
        yield name, json.dumps(value)
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key not in LEFT_OUT:
            yield from entries(inner, f"{name}/{key}" if name else str(key))


class VisibleText(HTMLParser):
    """The text of a page as a reader sees it, without what no two runs share."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._hidden = ""
        self._section = ""
        self._column = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Follow which section, and which column of a table, the text stands in."""
        if tag in UNSHOWN:
            self._hidden = tag
        elif tag == "section":
            self._section = dict(attrs).get("id") or ""
        elif tag == "tr":
            self._column = 0
        elif tag in ("td", "th"):
            self._column += 1

    def handle_endtag(self, tag: str) -> None:
        """Show again what comes after a script, a style or a table."""
        if tag == self._hidden:
            self._hidden = ""
        elif tag == "section":
            self._section = ""
        elif tag == "table":
            self._column = 0

    def handle_data(self, data: str) -> None:
        """Keep a piece of text."""
        place = (self._section, self._column)
        if self._hidden or self._section == "versions" or place == MINUTES:
            return
        if (line := " ".join(data.split())) and not SECONDS.fullmatch(line):
            self.lines.append(line)


def text_parts(path: Path) -> Parts:
    """Return how often each piece of text stands on a page, and a digest of their order."""
    lines = VisibleText(path.read_text()).lines
    counts = {line: f"{count} times" for line, count in Counter(lines).items()}
    return counts | {"order of all pieces": digest("\n".join(lines).encode())}


def study_parts(study: Path) -> dict[str, Parts]:
    """Return everything of a study that is compared, by file and array."""
    found: dict[str, Parts] = {}
    for path in sorted((study / "data").glob("*.zarr")):
        arrays = store_parts(path).items()
        found |= {f"{path.relative_to(study)}/{name}": parts for name, parts in arrays}
    files = {
        "models/*/*.safetensors": weight_parts,
        "models/*/metrics.json": number_parts,
        "reports/*/metrics.json": number_parts,
        "reports/report.html": text_parts,
    }
    for pattern, parts_of in files.items():
        for path in sorted(study.glob(pattern)):
            found[str(path.relative_to(study))] = parts_of(path)
    return found


def difference(before: Parts | None, after: Parts | None) -> str:
    """Return how two versions of one thing differ, in a few words; empty if they do not."""
    if before is None or after is None:
        return "only before" if after is None else "only after"
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not names:
        return ""
    first = names[0]
    was, now = (parts.get(first, "missing") for parts in (before, after))
    return (
        f"{len(names)} of {len({**before, **after})} differ, first {first}: {was:.60} → {now:.60}"
    )


def main() -> None:
    """Print a line for each thing compared; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="a study's folder, run")
    parser.add_argument("after", type=Path, help="the same study, run again")
    arguments = parser.parse_args()
    before, after = study_parts(arguments.before), study_parts(arguments.after)
    if not before:
        sys.exit(f"{arguments.before}: nothing to compare; expected a study that has run")
    differences = {n: difference(before.get(n), after.get(n)) for n in {**before, **after}}
    for name, told in differences.items():
        print(f"{name}: {told}" if told else f"{name}: the same ({len(before[name])})")
    if any(differences.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
