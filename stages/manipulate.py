"""Counterfactuals: a scan as it would be further along a probe's direction."""

import logging
import re
from pathlib import Path
from typing import Annotated

import typer

from stages.application import Detail, Request, application

log = logging.getLogger(__name__)

FAR = 6.0
"""Scales beyond are farther than the fitting scans lie from each other, in standard deviations."""


@application("scans")
def manipulate(
    request: Request,
    *,
    direction: Annotated[
        str, typer.Option(help="What to move towards: diagnosis:AD, or a column, age_years.")
    ],
    directions: Annotated[
        Path, typer.Option(help="directions.json of the probe stage, of this very LDAE.")
    ] = Path("reports/probe/directions.json"),
    scale: Annotated[
        str,
        typer.Option(
            help="How far: a number, a list a,b,c or a range from:to:count. The unit is one"
            " standard deviation of y_sem along the direction over the scans that the probe was"
            " fitted on (train and val, never test)."
        ),
    ] = "-3:3:7",
    detail: Detail = False,
) -> None:
    """Move scans along a direction in y_sem space and keep their x_T. Scale 0 is the scan's own.

    Example: pipeline manipulate --direction diagnosis:AD --scale -3:3:7 --scan sub-001
    --latents data/latents.zarr --volumes data/volumes.zarr --out made
    """
    from pipeline.applications.ranges import parse_numbers

    names = request.scan_names()
    scales = parse_numbers(scale, option="--scale")
    if max(map(abs, scales)) > FAR:
        log.warning(
            "--scale %s: beyond %g standard deviations no scan was seen; such images mean nothing",
            scale,
            FAR,
        )
    variant = f"along-{re.sub('[^A-Za-z0-9]+', '-', direction)}"
    from pipeline.artefact import check_artefact
    from pipeline.evaluation.directions import read_direction

    ldae = check_artefact(request.options["ldae"], kind="ldae")
    along = read_direction(directions, direction, ldae_digest=str(ldae["weights_sha256"]))
    bench = request.open(*names, variant=f"{variant}_detail" if detail else variant)
    from pipeline.applications.manipulate import manipulate as apply

    bench.run(
        names,
        lambda source: apply(bench.models, source.z_0, along, scales),
        detail=detail,
        scales=list(scales),
        direction={"name": direction, "sha256": along.digest},
    )
