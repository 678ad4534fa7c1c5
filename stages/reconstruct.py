"""Reconstruct scans from their own y_sem and x_T."""

from typing import TYPE_CHECKING

import typer

from stages.application_options import (
    Ae,
    Detail,
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


def reconstruct(
    context: typer.Context,
    *,
    detail: Detail = False,
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
    seed: Seed = 0,  # noqa: ARG001 (common to the applications; nothing is drawn here)
) -> None:
    """Reconstruct scans of a study, or new images, from their own y_sem and inverted x_T.

    Example: pipeline reconstruct --input head.nii.gz --volumes data/volumes.zarr --space native
    --out made
    """
    names = scan_names(scans, inputs, list_file)
    application = open_application(
        context.obj,
        "reconstruct",
        names,
        ae=ae,
        ldae=ldae,
        out=out,
        steps=steps,
        sampler=sampler,
        latents=latents,
        volumes=volumes,
        space=space,
        variant="detail" if detail else "",
    )
    from pipeline.applications.reconstruct import reconstruct as apply

    def reconstruct_scan(scan: "InputScan") -> "GeneratedVolumes":
        return apply(application.models, scan.z_0, scan.encoder_volume)

    application.run(names, reconstruct_scan, detail=detail)
