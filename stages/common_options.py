"""The options that all commands share: parameters, device, workers, logging."""

import logging
import time
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from stages.messages import from_here
from stages.requested_settings import warn_unread

if TYPE_CHECKING:
    import torch

    from schemas.params import Params

log = logging.getLogger(__name__)

PANEL = "Common options"
STUDY_PARAMS = Path("params.yaml")
MODELS = ("ae", "ldae", "ldm")
"""Options that name a model folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The common options of one invocation. To add an option, add a field."""

    params_file: Annotated[
        Path | None,
        typer.Option(
            "--params",
            help="Parameters; default: params.yaml here, else the demo preset.",
            rich_help_panel=PANEL,
        ),
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override: section.key=value.", rich_help_panel=PANEL),
    ] = None
    device_name: Annotated[
        str,
        typer.Option(
            "--device",
            help="auto, cpu, cuda, cuda:N; encode: cuda:0,cuda:1 too.",
            rich_help_panel=PANEL,
        ),
    ] = "auto"
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Worker processes; default: one a core.", rich_help_panel=PANEL
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="dask scheduler, tcp://host:port, or a slurm.yaml.",
            rich_help_panel=PANEL,
        ),
    ] = None
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Only warnings and errors.", rich_help_panel=PANEL)
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Debug messages too.", rich_help_panel=PANEL)
    ] = False
    log_file: Annotated[
        Path | None,
        typer.Option("--log-file", help="Also log to this file.", rich_help_panel=PANEL),
    ] = None

    def params(self) -> "Params":
        """Return the validated parameters: of the file given, else of the study in this folder."""
        path = self.params_file or (STUDY_PARAMS if STUDY_PARAMS.is_file() else None)
        state = None
        if path is not None and path.is_file():
            state = (path.absolute(), path.stat().st_mtime_ns, path.stat().st_size)
        return _parsed(path, state, tuple(self.overrides or []))

    def set_by_hand(self) -> dict[str, Any]:
        """Return {section.key: value} of all --set, nested values one by one."""
        from stages.params_file import read_overrides

        return read_overrides(self.overrides or [])

    def device(self) -> "torch.device":
        """Return the device asked for."""
        from pipeline.runtime.devices import resolve_device

        return resolve_device(self.device_name)

    def devices(self) -> "list[torch.device]":
        """Return the devices asked for, where a command can use several."""
        from pipeline.runtime.devices import resolve_devices

        return resolve_devices(self.device_name)

    def check(self) -> None:
        """Refuse wrong parameters and devices before a command loads what is slow to load."""
        self.params()
        if self.device_name not in ("auto", "cpu"):
            self.devices()
        if self.params_file is None and STUDY_PARAMS.is_file():
            log.debug("parameters of %s", STUDY_PARAMS)

    def num_workers(self) -> int:
        """Return the number of worker processes."""
        from pipeline.runtime.devices import available_cpus

        return self.workers or available_cpus()

    def start_logging(self) -> None:
        """Send log lines to stderr, and to the log file where one is given."""
        level = logging.DEBUG if self.verbose else logging.WARNING if self.quiet else logging.INFO
        handlers: list[logging.Handler] = [logging.StreamHandler()]
        if self.log_file is not None:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(self.log_file))
        for handler in handlers:
            handler.addFilter(_ours_or_warning)
            handler.setFormatter(_LineFormatter("%(message)s"))
        logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
        logging.getLogger("pipeline").setLevel(level)
        logging.getLogger("stages").setLevel(level)


class _LineFormatter(logging.Formatter):
    """The message alone; a warning or error begins with its level."""

    def format(self, record: logging.LogRecord) -> str:
        text = from_here(super().format(record))
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


@cache
def _parsed(
    path: Path | None,
    state: tuple[Path, int, int] | None,  # noqa: ARG001 a changed file is read again
    overrides: tuple[str, ...],
) -> "Params":
    """Read parameters once a command, which asks for them many times."""
    from stages.params_file import load_params

    return load_params(path, list(overrides))


def _ours_or_warning(record: logging.LogRecord) -> bool:
    """Keep libraries that set their own log level (dask) to warnings."""
    return record.name.split(".")[0] in {"pipeline", "stages"} or record.levelno >= logging.WARNING


def print_version(wanted: bool) -> None:
    """Print the package's version and end, where that is asked for."""
    if wanted:
        from pipeline import __version__

        typer.echo(f"ldae-pipeline {__version__}")
        raise typer.Exit


class StudyCommand(TyperCommand):
    """A command that takes the common options after its own.

    Its function lists its own options alone, and finds the common ones in its context:

        def embed(context: typer.Context, *, out: Annotated[Path, typer.Option(help="…")]) -> None:
            settings: Settings = context.obj

    Parameters and devices are checked before the function runs, and its duration is logged after.
    """

    def __init__(self, name: str | None, *, params: list[Any], **rest: Any) -> None:
        super().__init__(name, params=[*params, *_options_of(Settings)], **rest)

    def invoke(self, ctx: Any) -> None:
        """Gather the common options into `ctx.obj`, and run the function with the others."""
        values = {name: _absolute_if_dots(value) for name, value in ctx.params.items()}
        values |= {name: _fetched(values[name]) for name in MODELS if name in values}
        _refuse_remote(values)
        settings = Settings(**{field.name: values.pop(field.name) for field in fields(Settings)})
        ctx.obj, ctx.params = settings, values
        settings.start_logging()
        settings.check()
        name = str(self.name).replace("-", "_")
        warn_unread(settings, name)
        started = time.monotonic()
        super().invoke(ctx)
        log.info("%s took %.0f s", name, time.monotonic() - started)


def _options_of(options: type[Settings]) -> list[Any]:
    """Return the fields of a dataclass as typer makes options of them."""
    app = typer.Typer(add_completion=False)
    app.command()(options)
    return list(get_command(app).params)


def _fetched(value: Any) -> Any:
    """Return the local folder of a model that is named as hf://OWNER/REPO@REVISION."""
    from pipeline.models.hub import hub_folder, is_hub_name

    return hub_folder(str(value)) if isinstance(value, Path) and is_hub_name(value) else value


def _refuse_remote(values: dict[str, Any]) -> None:
    """Refuse to write into object storage: stores are built here, then uploaded."""
    out = values.get("out")
    if isinstance(out, Path) and ":/" in str(out):
        from pipeline.stores.location import refuse_remote_target

        refuse_remote_target(out, "--out")


def _absolute_if_dots(value: Any) -> Any:
    """Return a folder given as `.` or `..` by its absolute path: files are named after it."""
    return value.resolve() if isinstance(value, Path) and value.name in {"", ".."} else value
