"""Scaffold a study: params.yaml and dvc.yaml in the user's own folder."""

from pathlib import Path
from typing import Annotated

import typer

from stages.settings import Settings


def init(
    settings: Settings,
    *,
    study: Annotated[Path, typer.Argument(help="Folder of the study; made where missing.")],
    preset: Annotated[
        str,
        typer.Option(help="demo, cpu, small, paper; those of the docs: phantom, parity."),
    ] = "demo",
    input_path: Annotated[
        Path | None,
        typer.Option("--input", help="Your BIDS root, folder or table; without it, phantoms."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Overwrite params.yaml and dvc.yaml.")] = False,
) -> None:
    """Write params.yaml and dvc.yaml into a folder, ready for `dvc repro`.

    Example: pipeline init my-study --input bids/ --preset small
    """
    from pipeline.compute import counted
    from schemas.errors import ParamsError
    from stages.params_file import load_params
    from stages.scaffold import label_hint, scaffold

    if settings.params_file is not None:
        raise ParamsError("init: --params plays no part; choose --preset and change with --set")
    found = scaffold(
        study,
        preset=preset,
        input_path=input_path,
        overrides=settings.overrides or [],
        force=force,
    )
    listed = ""
    if found is not None:
        people = found["subject_id"].nunique()
        whose = f" of {counted(people, 'subject')}" if people != len(found) else ""
        listed = f" {counted(len(found), 'scan')}{whose} found."
    hint = None if found is None else label_hint(found, load_params(study / "params.yaml", []))
    if hint is not None:
        typer.echo(hint)
    typer.echo(f"{study}: ready.{listed} Next: cd {study} && dvc repro")
