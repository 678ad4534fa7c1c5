"""Interpolate between two scans of a subject."""

from pathlib import Path
from typing import Annotated

import typer

from stages.application_options import (
    Ae,
    Latents,
    LdaeFolder,
    Out,
    Regions,
    SamplerName,
    Seed,
    SpaceOption,
    Steps,
    Volumes,
    open_application,
)
from stages.regions import check_regions, measure_made


def interpolate(
    context: typer.Context,
    *,
    a: Annotated[str, typer.Option("--a", help="First scan: an id in --latents, or a file.")],
    b: Annotated[str, typer.Option("--b", help="Second scan: an id in --latents, or a file.")],
    alpha: Annotated[
        str | None,
        typer.Option(
            help="Where: 0 is a, 1 is b; a number, a list a,b,c or a range from:to:count."
            " Default 0:1:5."
        ),
    ] = None,
    months: Annotated[
        str | None,
        typer.Option(
            help="Where, as months since the subject's first visit (needs --manifest): a number, a"
            " list or a range."
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="manifest.csv with the visits' months_from_first.")
    ] = None,
    detail: Annotated[
        bool,
        typer.Option(
            help="Add the fine detail of the two scans that the autoencoder cannot hold, blended"
            " (needs their volumes)."
        ),
    ] = False,
    regions: Regions = False,
    latents: Latents = None,
    volumes: Volumes = None,
    space: SpaceOption = "mni",
    ae: Ae = None,
    ldae: LdaeFolder = None,
    out: Out,
    steps: Steps = None,
    sampler: SamplerName = None,
    seed: Seed = 0,  # noqa: ARG001 (common to the applications; nothing is drawn here)
) -> None:
    """Interpolate between two scans; `--space native` writes on the grid of scan a.

    Example: pipeline interpolate --a sub-001_ses-1 --b sub-001_ses-2 --months 12
    --manifest data/cohort/manifest.csv --latents data/latents.zarr --out made
    """
    check_regions(asked=regions, space=space)
    from pipeline.applications.time_points import points_between

    points = points_between(a, b, alpha=alpha, months=months, manifest=manifest)
    application = open_application(
        context.obj,
        "interpolate",
        [a, b],
        ae=ae,
        ldae=ldae,
        out=out,
        steps=steps,
        sampler=sampler,
        latents=latents,
        volumes=volumes,
        space=space,
        variant="detail" if detail else "",
        scan_by_scan=False,
    )
    from pipeline.applications.runner import run_pair

    path, is_new = run_pair(a, b, application.opener, application.writer, points, detail=detail)
    kept = "" if is_new else ", made already and kept"
    typer.echo(f"{path}: {len(points.alphas)} volumes{kept}")
    if regions:
        measure_made(out)
