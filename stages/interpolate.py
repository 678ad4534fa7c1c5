"""Between two visits: fill in what was not scanned."""

from pathlib import Path
from typing import Annotated

import typer

from stages.application_options import Request, application


@application("stores")
def interpolate(
    request: Request,
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
    extrapolate: Annotated[bool, typer.Option(help="Allow places outside the two scans.")] = False,
    detail: Annotated[
        bool,
        typer.Option(
            help="Add the fine detail of the two scans that the autoencoder cannot hold, blended"
            " (needs their volumes)."
        ),
    ] = False,
) -> None:
    """Interpolate between two scans; `--space native` writes on the grid of scan a.

    Example: pipeline interpolate --a sub-001_ses-1 --b sub-001_ses-2 --months 12
    --manifest data/cohort/manifest.csv --latents data/latents.zarr --out made
    """
    from pipeline.applications.time_points import points_between

    points = points_between(
        a, b, alpha=alpha, months=months, manifest=manifest, extrapolate=extrapolate
    )
    bench = request.open(a, b, variant="detail" if detail else "")
    from pipeline.applications.runner import run_pair

    path, made = run_pair(a, b, bench.opener, bench.writer, points, detail=detail)
    kept = "" if made else ", made already and kept"
    typer.echo(f"{path}: {len(points.alphas)} volumes{kept}")
