"""Differences between two sets of parameters, in words."""

from collections.abc import Mapping
from typing import Any

SHOWN = 6
MISSING = object()


def flattened(values: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Return nested values as {a.b.c: value}, tuples as lists, as in JSON."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{section}.{key}" if section else key
        if isinstance(value, Mapping):
            flat |= flattened(value, name)
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return `key: old, now new` for each value that differs."""
    before, now = flattened(old), flattened(new)
    names = list(dict.fromkeys([*now, *before]))
    return [
        f"{name}: {_word(before, name)}, now {_word(now, name)}"
        for name in names
        if before.get(name, MISSING) != now.get(name, MISSING)
    ]


def listed(lines: list[str]) -> str:
    """Return changes as one line, the first few of many."""
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more


def _word(values: Mapping[str, Any], name: str) -> str:
    return f"{values[name]}" if name in values else "not set"
