"""Other brains with the same y_sem."""

from typing import TYPE_CHECKING, Annotated

import typer

from stages.application_options import Request, application

if TYPE_CHECKING:
    from pipeline.applications.generated_volumes import GeneratedVolumes
    from pipeline.applications.inputs import InputScan


@application("scans")
def vary(
    request: Request,
    *,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Variations a scan.")] = 4,
) -> None:
    """Make variations of scans: their y_sem with random x_T. What stays alike, y_sem holds.

    Example: pipeline vary --scan sub-001 --latents data/latents.zarr --count 4 --out made
    """
    names, seed = request.scan_names(), request.options["seed"]
    bench = request.open(*names, variant=f"seed-{seed}")
    from pipeline.applications.vary import vary as apply

    def vary_scan(scan: "InputScan") -> "GeneratedVolumes":
        z_0, volume = scan.z_0, scan.encoder_volume
        return apply(bench.models, z_0, volume, name=scan.scan_id, count=count, seed=seed)

    bench.run(names, vary_scan, count=count, seed=seed)
