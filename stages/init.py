"""Scaffold a study: params.yaml and dvc.yaml in the user's own folder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.common_options import Settings


def init(
    context: typer.Context,
    *,
    study: Annotated[Path, typer.Argument(help="Folder of the study; made where missing.")],
    preset: Annotated[
        str,
        typer.Option(
            help="demo, cpu, cpu-1.5, small, paper; published: for imported weights; those of the"
            " docs: phantom, parity."
        ),
    ] = "demo",
    input_path: Annotated[
        Path | None,
        typer.Option("--input", help="Your BIDS root, folder or table; without it, phantoms."),
    ] = None,
    resolution: Annotated[
        float | None,
        typer.Option(
            help="Voxel size (mm) of the preprocessed volumes, over the preset's field of view; 3"
            " and 1.5 have an autoencoder in the package."
        ),
    ] = None,
    share: Annotated[
        Literal["latents", "volumes"],
        typer.Option(help="What `dvc push` shares: latents and all after them, or volumes too."),
    ] = "latents",
    force: Annotated[bool, typer.Option(help="Overwrite params.yaml and dvc.yaml.")] = False,
) -> None:
    """Write params.yaml and dvc.yaml into a folder, ready for `dvc repro`, under git too.

    With the preset `published`, weights are imported next, by `import-ae` and `import-ldae`.

    Example: pipeline init my-study --input bids/ --preset cpu --resolution 1.5
    """
    settings: Settings = context.obj
    from pipeline.runtime.progress import counted
    from schemas.errors import ParamsError
    from stages.params_file import load_params
    from stages.scaffold import is_study, label_hint, next_step, scaffold
    from stages.versioning import connect, needs_connecting

    overrides = settings.overrides or []
    if settings.params_file is not None:
        raise ParamsError("init: --params plays no part; choose --preset and change with --set")
    nothing_new = not (force or input_path or overrides or resolution)
    if nothing_new and is_study(study) and needs_connecting(study):
        for line in connect(study, load_params(study / "params.yaml", []).cohort.input):
            typer.echo(line)
        typer.echo(f"{study}: params.yaml and dvc.yaml are as they were")
        return
    new = scaffold(
        study,
        preset=preset,
        input_path=input_path,
        overrides=overrides,
        force=force,
        share=share,
        resolution=resolution,
    )
    told, listed, scans = new.told, "", new.scans
    if scans is not None:
        people = scans["subject_id"].nunique()
        whose = f" of {counted(people, 'subject')}" if people != len(scans) else ""
        listed = f" {counted(len(scans), 'scan')}{whose} found."
        # Imported probes bring their classes with them.
        imported = preset == "published"
        hint = None if imported else label_hint(scans, load_params(study / "params.yaml", []))
        told = told if hint is None else [*told, hint]
    for line in told:
        typer.echo(line)
    typer.echo(f"{study}: ready.{listed} Next: {next_step(study, preset)}")
