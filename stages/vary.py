"""Other brains with the same y_sem."""

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
    Seed,
    SpaceOption,
    Steps,
    Volumes,
    open_bench,
    scan_names,
)
from stages.settings import Settings


def vary(
    settings: Settings,
    *,
    scans: Scans = None,
    inputs: Inputs = None,
    list_file: ListFile = None,
    latents: Latents = None,
    volumes: Volumes = None,
    ae: Ae = Path("models/ae"),
    ldae: LdaeFolder = Path("models/ldae"),
    out: Out,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Variations a scan.")] = 4,
    seed: Seed = 0,
    space: SpaceOption = "mni",
    steps: Steps = None,
    sampler: SamplerName = None,
) -> None:
    """Make variations of scans: their y_sem with random x_T. What stays alike, y_sem holds.

    Example: pipeline vary --scan sub-001 --latents data/latents.zarr --count 4 --out made
    """
    names = scan_names(scans, inputs, list_file)
    bench = open_bench(
        settings,
        "vary",
        ae=ae,
        ldae=ldae,
        out=out,
        latents=latents,
        volumes=volumes,
        space=space,
        steps=steps,
        sampler=sampler,
    )
    from pipeline.applications.vary import vary as apply

    bench.run(
        names,
        lambda source: apply(bench.models, source.z_0, name=source.scan_id, count=count, seed=seed),
    )
