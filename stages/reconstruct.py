"""Take scans apart into y_sem and x_T and put them together again."""

from pathlib import Path

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


def reconstruct(
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
    space: SpaceOption = "mni",
    steps: Steps = None,
    sampler: SamplerName = None,
) -> None:
    """Reconstruct scans of a study, or new images, from their own y_sem and inverted x_T.

    Example: pipeline reconstruct --input head.nii.gz --volumes data/volumes.zarr --space native
    --out made
    """
    names = scan_names(scans, inputs, list_file)
    bench = open_bench(
        settings,
        "reconstruct",
        ae=ae,
        ldae=ldae,
        out=out,
        latents=latents,
        volumes=volumes,
        space=space,
        steps=steps,
        sampler=sampler,
    )
    from pipeline.applications.reconstruct import reconstruct as apply

    bench.run(names, lambda source: apply(bench.models, source.z_0))
