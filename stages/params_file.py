"""Read params.yaml and --set overrides into validated parameters, and write params.yaml."""

import difflib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from pipeline.runtime.files import write_atomic
from schemas.changes import flattened
from schemas.errors import ParamsError, in_plain_words
from schemas.params import Params


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice; YAML would take the last value silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


RETIRED = {"rough_weight": "no longer used, delete it (docs/method.md: G is exact in the modes)"}
"""Keys that params.yaml of earlier versions hold, with what to do about them."""


def load_params(path: Path | None, overrides: list[str]) -> Params:
    """Return the parameters of a file with overrides applied; no file means the demo preset.

    Raises
    ------
    ParamsError
        Naming the file, the key, what was expected, and for unknown keys the nearest known one.
    """
    values = _read(path) if path is not None else {}
    asked = set()
    for key, value in _split(overrides):
        _assign(values, key, value)
        asked.add(key)
    try:
        return Params.model_validate(_without_empty(values, Params))
    except ValidationError as error:
        where = _where(error.errors()[0])
        by_option = any(f"{where}.".startswith(f"{key}.") for key in asked)
        source = "--set" if path is None or by_option else f"{path}:"
        raise ParamsError(f"{source} {_describe(error)}") from error


def read_overrides(overrides: list[str]) -> dict[str, Any]:
    """Return {section.key: value} of --set options, nested values one by one.

    Raises
    ------
    ParamsError
        If one is malformed.
    """
    return flattened(dict(_split(overrides)))


def _split(overrides: list[str]) -> Iterator[tuple[str, Any]]:
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ParamsError(f"--set {override}: expected section.key=value")
        yield key.strip(), _parse(text, source=f"--set {override}")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = _parse(path.read_text(), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise ParamsError(f"{path}: cannot be read ({reason}); give --params FILE") from error
    if values is not None and not isinstance(values, dict):
        raise ParamsError(f"{path}: expected sections with keys, found {type(values).__name__}")
    return values or {}


def _parse(text: str, *, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ParamsError(f"{source}: no valid YAML ({reason}{line})") from error


def _assign(
    values: dict[str, Any], key: str, value: Any, model: type[BaseModel] | None = Params
) -> None:
    """Set one key; of a section those keys that are given, so that the others stay as they are."""
    *sections, last = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values, model = values[section], _section_of(model, section)
        if not isinstance(values, dict):
            raise ParamsError(f"--set {key}: {section} is no section")
    inner = _section_of(model, last)
    if inner is None or not isinstance(value, dict):
        values[last] = value
        return
    for name, part in value.items():
        _assign(values, f"{last}.{name}", part, model)


def _section_of(model: type[BaseModel] | None, name: str) -> type[BaseModel] | None:
    """Return the section that a key stands for; None where it stands for a value."""
    field = None if model is None else model.model_fields.get(name)
    kind = None if field is None else field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _without_empty(values: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Leave out sections without a key: all their lines may be comments."""
    kept = {}
    for name, value in values.items():
        inner = _section_of(model, str(name))
        if inner is not None and value is None:
            continue
        is_section = inner is not None and isinstance(value, dict)
        kept[name] = _without_empty(value, inner) if is_section and inner else value
    return kept


def _describe(error: ValidationError) -> str:
    first, *others = error.errors()
    where = _where(first)
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        hint = RETIRED.get(str(first["loc"][-1]), hint)
        return f"unknown key {where}; {hint}"
    # A value that may be of several kinds has an error for each.
    kinds = [first, *(other for other in others if _where(other) == where)]
    wanted = dict.fromkeys(in_plain_words(kind["msg"]).removeprefix("expected ") for kind in kinds)
    expected = "expected " if in_plain_words(first["msg"]).startswith("expected ") else ""
    return f"{where}: {expected}{' or '.join(wanted)}, got {first['input']!r}"


def _where(error: ErrorDetails) -> str:
    """Return the key; pydantic adds the kind that it tried, such as literal['auto']."""
    return ".".join(str(part) for part in error["loc"] if "[" not in str(part))


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Params
    for part in location:
        model = _section_of(model, str(part))
        if model is None:
            return []
    return list(model.model_fields)


class _Representer(RoundTripRepresenter):
    """Writes what PyYAML reads back: `null`, not a blank, and 1.0e-06, for 1e-06 is text to it."""

    def represent_none(self, _: None) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def represent_number(self, value: float) -> Any:
        text = repr(value)
        if "." not in text:
            text = text.replace("e", ".0e")
        return self.represent_scalar("tag:yaml.org,2002:float", text)


_Representer.add_representer(type(None), _Representer.represent_none)
_Representer.add_representer(float, _Representer.represent_number)


def write_params(params: Params, path: Path) -> None:
    """Write every parameter with its meaning as a comment."""
    document = _commented(params, indent=0)
    document.yaml_set_start_comment(
        "Every parameter of the study; `pipeline COMMAND --set section.key=value` overrides."
    )
    for name in document:
        document.yaml_set_comment_before_after_key(name, before="\n")
    yaml_writer = YAML()
    yaml_writer.Representer = _Representer
    yaml_writer.width = sys.maxsize
    text = io.StringIO()
    yaml_writer.dump(document, text)
    write_atomic(path, text.getvalue())


def _commented(section: BaseModel, *, indent: int) -> CommentedMap:
    """Return a section for ruamel, the description of every field as a comment above it."""
    values, commented = section.model_dump(mode="json"), CommentedMap()
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            commented[name] = _commented(value, indent=indent + 2)
        else:
            commented[name] = _on_one_line(values[name])
        if field.description:
            meaning = " ".join(field.description.split())
            commented.yaml_set_comment_before_after_key(name, before=meaning, indent=indent)
    return commented


def _on_one_line(value: Any) -> Any:
    """Return a value for ruamel: texts in double quotes, lists and mappings within their line."""
    if isinstance(value, str):
        return DoubleQuotedScalarString(value)
    items: CommentedSeq | CommentedMap
    if isinstance(value, list):
        items = CommentedSeq(_on_one_line(item) for item in value)
    elif isinstance(value, dict):
        items = CommentedMap({_on_one_line(key): _on_one_line(v) for key, v in value.items()})
    else:
        return value
    items.fa.set_flow_style()
    return items
