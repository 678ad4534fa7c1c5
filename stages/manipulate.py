"""Counterfactuals: a scan as it would be further along a probe's direction."""

from pathlib import Path
from typing import Annotated

import typer

from stages.application import (
    Ae,
    Inputs,
    Latents,
    LdaeFolder,
    ListFile,
    Out,
    SamplerName,
    Scans,
    SpaceOption,
    Steps,
    Volumes,
    open_bench,
    scan_names,
)
from stages.settings import Settings


def manipulate(
    settings: Settings,
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
    scans: Scans = None,
    inputs: Inputs = None,
    list_file: ListFile = None,
    latents: Latents = None,
    volumes: Volumes = None,
    ae: Ae = Path("models/ae"),
    ldae: LdaeFolder = Path("models/ldae"),
    out: Out,
    space: SpaceOption = "mni",
    steps: Steps = None,
    sampler: SamplerName = None,
) -> None:
    """Move scans along a direction in y_sem space and keep their x_T. Scale 0 is the scan's own.

    Example: pipeline manipulate --direction diagnosis:AD --scale -3:3:7 --scan sub-001
    --latents data/latents.zarr --volumes data/volumes.zarr --out made
    """
    from pipeline.applications.ranges import parse_numbers

    names = scan_names(scans, inputs, list_file)
    scales = parse_numbers(scale, option="--scale")
    bench = open_bench(
        settings,
        "manipulate",
        ae=ae,
        ldae=ldae,
        out=out,
        latents=latents,
        volumes=volumes,
        space=space,
        steps=steps,
        sampler=sampler,
    )
    from pipeline.applications.manipulate import manipulate as apply
    from pipeline.evaluation.directions import read_direction

    along = read_direction(directions, direction, ldae_digest=bench.models.ldae.digest)
    bench.run(names, lambda source: apply(bench.models, source.z_0, along, scales))
