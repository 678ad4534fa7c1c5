"""Take scans apart into y_sem and x_T and put them together again."""

from stages.application_options import Detail, Request, application


@application("scans")
def reconstruct(request: Request, *, detail: Detail = False) -> None:
    """Reconstruct scans of a study, or new images, from their own y_sem and inverted x_T.

    Example: pipeline reconstruct --input head.nii.gz --volumes data/volumes.zarr --space native
    --out made
    """
    names = request.scan_names()
    bench = request.open(*names, variant="detail" if detail else "")
    from pipeline.applications.reconstruct import reconstruct as apply

    bench.run(names, lambda source: apply(bench.models, source.z_0, source.seen), detail=detail)
