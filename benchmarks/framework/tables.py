"""Results as Markdown: the short table of the README, and every round in full."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.framework.registry import AT_MOST
from schemas.errors import ContractError

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def short_table(results: Mapping[str, Any]) -> str:
    """Return a row a target: what, against, target, measured, met."""
    lines = ["| what | against | target | measured | met |", "|---|---|---|---|---|"]
    for row in results["rows"].values():
        bound = "≤" if row["unit"] in AT_MOST else "≥"
        target = "–" if row["target"] is None else f"{bound} {_value(row['target'], row['unit'])}"
        if row["status"] == "measured":
            measured = _value(row["value"], row["unit"])
            met = {True: "yes", False: "**no**", None: "–"}[row["met"]]
        else:
            measured, met = row["status"], "–"
        lines.append(f"| {row['what']} | {row['against']} | {target} | {measured} | {met} |")
    return "\n".join([*lines, "", results["machine"]])


def full_text(results: Mapping[str, Any]) -> str:
    """Return all rows with every way's median and range."""
    parts = ["# Benchmarks", short_table(results)]
    for name, row in results["rows"].items():
        if row["status"] != "measured":
            continue
        parts.append(f"## {name}: {row['what']}")
        if row["note"]:
            parts.append(row["note"])
        if row["rounds"]:
            parts.append(_rounds(row["rounds"]))
        if row["numbers"]:
            parts.append("\n".join(f"- {k}: {v:.4g}" for k, v in row["numbers"].items()))
    return "\n\n".join(parts) + "\n"


def _rounds(rounds: Mapping[str, list[float]]) -> str:
    lines = ["| way | rounds | median s | range s |", "|---|---|---|---|"]
    for way, seconds in rounds.items():
        middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
        lines.append(f"| {way} | {len(seconds)} | {middle:.3g} | {low:.3g}–{high:.3g} |")
    return "\n".join(lines)


def _value(value: float, unit: str) -> str:
    number = f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2g}"
    return f"{number}{unit}" if unit in {"×", "%"} else f"{number} {unit}"


def put_table(readme: Path, results: Mapping[str, Any]) -> None:
    """Replace what stands between the marks in a Markdown file.

    Raises
    ------
    ContractError
        If the marks are not there.
    """
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        raise ContractError(f"{readme}: expected {BEGIN} and {END} around the table")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n{short_table(results)}\n{END}{after}")
