"""Other brains with the same y_sem."""

from typing import Annotated

import typer

from stages.application_options import Request, application


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

    bench.run(
        names,
        lambda source: apply(
            bench.models, source.z_0, source.seen, name=source.scan_id, count=count, seed=seed
        ),
        count=count,
        seed=seed,
    )
