"""Variations of a scan: brains with the same y_sem."""

from typing import TYPE_CHECKING, Annotated

import typer

from stages.application_options import (
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
    open_application,
    scan_names,
)

if TYPE_CHECKING:
    from pipeline.applications.generated_volumes import GeneratedVolumes
    from pipeline.applications.inputs import InputScan


def vary(
    context: typer.Context,
    *,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Variations a scan.")] = 4,
    scans: Scans = None,
    inputs: Inputs = None,
    list_file: ListFile = None,
    latents: Latents = None,
    volumes: Volumes = None,
    space: SpaceOption = "mni",
    ae: Ae = None,
    ldae: LdaeFolder = None,
    out: Out,
    steps: Steps = None,
    sampler: SamplerName = None,
    seed: Seed = 0,
) -> None:
    """Make variations of scans: their y_sem with random x_T. What stays alike, y_sem holds.

    Example: pipeline vary --scan sub-001 --latents data/latents.zarr --count 4 --out made
    """
    names = scan_names(scans, inputs, list_file)
    application = open_application(
        context.obj,
        "vary",
        names,
        ae=ae,
        ldae=ldae,
        out=out,
        steps=steps,
        sampler=sampler,
        latents=latents,
        volumes=volumes,
        space=space,
        variant=f"seed-{seed}",
    )
    from pipeline.applications.vary import vary as apply

    def vary_scan(scan: "InputScan") -> "GeneratedVolumes":
        z_0, volume = scan.z_0, scan.encoder_volume
        return apply(application.models, z_0, volume, name=scan.scan_id, count=count, seed=seed)

    application.run(names, vary_scan, count=count, seed=seed)
