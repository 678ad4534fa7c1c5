"""Check whether this computer can run the pipeline."""

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    *,
    study: Annotated[Path, typer.Option(help="Where the study will live.")] = Path(),
) -> None:
    """Check Python, memory, disk, libraries, weights and GPU; exit code 1 if something is missing.

    Example: pipeline doctor --study my-study
    """
    from rich.console import Console
    from rich.table import Table

    from pipeline.runtime.machine_check import check_machine

    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(box=None)
    for heading in ("", "what", "found", "remedy"):
        table.add_column(heading, overflow="fold")
    failed = False
    for check in check_machine(study):
        colour = colours[check.status]
        table.add_row(f"[{colour}]{check.status}[/]", check.name, check.found, check.remedy)
        failed |= check.status == "fail"
    Console().print(table)
    raise typer.Exit(code=int(failed))
