"""Look at a study in a browser: people as points, brains that move along directions."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.application_options import Ae, LdaeFolder, SamplerName, Steps, open_application
from stages.common_options import Settings

if TYPE_CHECKING:
    from pipeline.applications.runner import Opener
    from pipeline.explore.engine import Engine

MISSING = "pip install 'ldae-pipeline[explore]'"


def explore(
    context: typer.Context,
    study: Annotated[Path, typer.Argument(help="Folder of the study.")] = Path(),
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Port; the next free one if it is taken.")
    ] = 8765,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Any other than 127.0.0.1 lets other computers ask, who"
            " need the token of the printed address; nothing is encrypted."
        ),
    ] = "127.0.0.1",
    export: Annotated[
        Path | None,
        typer.Option(help="Write one HTML file that works offline, instead of serving the page."),
    ] = None,
    scans: Annotated[
        list[str] | None,
        typer.Option(
            "--scan",
            help="With --export: a scan to move along the directions; may be repeated. Default:"
            " three of the test split.",
        ),
    ] = None,
    places: Annotated[
        int, typer.Option(min=3, max=21, help="With --export: places along a direction.")
    ] = 7,
    ae: Ae = None,
    ldae: LdaeFolder = None,
    steps: Steps = None,
    sampler: SamplerName = None,
) -> None:
    """Show a study as a page on this computer: a map of its people, and brains that move.

    Nothing is written but what is downloaded. Ctrl-C ends it.

    Example: pipeline explore my-study
    """
    from schemas.errors import ParamsError

    if not study.is_dir():
        raise ParamsError(f"{study}: no such folder; give that of a study (`pipeline init`)")
    if export is None and scans:
        raise ParamsError("--scan goes with --export; on the page, choose a person by hand")
    if not host:
        raise ParamsError("--host: expected an address of this computer, such as 127.0.0.1")
    _check_installed()
    settings: Settings = context.obj
    # Paths are those of the folder where the command is typed.
    ae, ldae, export = (path and path.absolute() for path in (ae, ldae, export))
    if settings.params_file is not None:
        settings = replace(settings, params_file=settings.params_file.absolute())
    title = study.resolve().name
    with contextlib.chdir(study):  # as if every command were run in the study's folder
        engine = _engine(settings, title, ae, ldae, steps, sampler)
        if export is not None:
            from pipeline.explore.export import export_page

            size = export_page(engine, export, scans=scans or [], places=places)
            typer.echo(f"{export}: {size / 1e6:.1f} MB, works without a network")
            return
        from pipeline.explore.serve import serve

        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
            serve(engine, host=host, port=port, announce=lambda url: typer.echo(f"explore: {url}"))


def _engine(
    settings: Settings,
    title: str,
    ae: Path | None,
    ldae: Path | None,
    steps: int | None,
    sampler: str | None,
) -> "Engine":
    """Return the study, opened; its models are loaded when the engine starts."""
    from pipeline.explore.directions import study_directions
    from pipeline.explore.engine import Engine
    from pipeline.explore.study import ExplorePaths, open_study
    from pipeline.models.bundled_ldae import find_ldae

    paths = ExplorePaths.of_folder(Path())
    opened = open_study(paths, title=title)

    def load() -> "Opener":
        application = open_application(
            settings,
            "explore",
            [],
            ae=ae,
            ldae=ldae,
            out=Path(),
            steps=steps,
            sampler=sampler,
            latents=paths.latents,
            volumes=paths.volumes if opened.volumes is not None else None,
        )
        models = replace(application.models, watched=False)
        return replace(application.opener, models=models)

    directions = study_directions(opened, find_ldae(ldae)[0])
    options = _options(settings, ae, ldae, sampler)
    return Engine(study=opened, directions=directions, load=load, options=options)


def _options(
    settings: Settings, ae: Path | None, ldae: Path | None, sampler: str | None
) -> list[str]:
    """Return what other commands must be given to use the same models and parameters."""
    named = {"--params": settings.params_file, "--ae": ae, "--ldae": ldae, "--sampler": sampler}
    words = [word for name, value in named.items() if value for word in (name, str(value))]
    words += [word for given in settings.overrides or [] for word in ("--set", given)]
    device = settings.device_name
    return words if device == "auto" else [*words, "--device", device]


def _check_installed() -> None:
    from importlib.util import find_spec

    from schemas.errors import ParamsError

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ParamsError(f"explore: {' and '.join(missing)} not installed; {MISSING}")
