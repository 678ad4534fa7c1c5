"""The command-line reference, made from the application, so that it cannot fall behind it."""

import inspect
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

from stages.cli import STAGES, app
from stages.common_options import Settings


def cli_markdown() -> str:
    """Return the whole reference as one Markdown page."""
    parts = [
        "# Command line",
        "Every stage and tool, as `pipeline COMMAND --help` says it. The [common"
        " options](#common-options) go with every command. Errors that you can mend are one line"
        " on stderr and exit code 2.",
    ]
    for registered in app.registered_commands:
        function: Any = registered.callback
        kind = "stage" if registered.name in STAGES else "tool"
        parts += [f"## pipeline {registered.name}", f"*{kind}*", _help(function)]
        parts.append(_options(_parameters(function)))
    return "\n\n".join([*parts, "## Common options", _options(_parameters(Settings))]) + "\n"


def _parameters(function: Any) -> list[inspect.Parameter]:
    """Return the parameters that are options or arguments, and not typer's context."""
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if get_origin(p.annotation) is Annotated]


def _help(function: Any) -> str:
    before, _, example = inspect.cleandoc(function.__doc__).partition("Example: ")
    return f"{before.strip()}\n\n```text\n{' '.join(example.split())}\n```"


def _options(parameters: Iterable[inspect.Parameter]) -> str:
    rows = [_row(p) for p in parameters]
    return "\n".join(["| option | meaning | default |", "|---|---|---|", *rows])


def _row(parameter: inspect.Parameter) -> str:
    kind, info = get_args(parameter.annotation)[:2]
    if type(info).__name__ == "ArgumentInfo":
        name = parameter.name.upper()
    else:
        given = [n for n in (info.default, *(info.param_decls or ())) if isinstance(n, str)]
        name = given[0] if given else f"--{parameter.name.replace('_', '-')}"
    meaning = re.sub(r"\s+", " ", info.help or "").replace("|", r"\|")
    choices = [c for part in (kind, *get_args(kind)) for c in _choices(part)]
    if choices:
        meaning += f" One of {', '.join(f'`{c}`' for c in choices)}."
    default = parameter.default
    if default is inspect.Parameter.empty:
        shown = "required"
    else:
        shown = "" if default in (None, False) else f"`{default}`"
    return f"| `{name}` | {meaning} | {shown} |"


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()
