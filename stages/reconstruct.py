"""Take scans apart into y_sem and x_T and put them together again."""

from typing import TYPE_CHECKING

from stages.application_options import Detail, Request, application

if TYPE_CHECKING:
    from pipeline.applications.generated_volumes import GeneratedVolumes
    from pipeline.applications.inputs import InputScan


@application("scans")
def reconstruct(request: Request, *, detail: Detail = False) -> None:
    """Reconstruct scans of a study, or new images, from their own y_sem and inverted x_T.

    Example: pipeline reconstruct --input head.nii.gz --volumes data/volumes.zarr --space native
    --out made
    """
    names = request.scan_names()
    bench = request.open(*names, variant="detail" if detail else "")
    from pipeline.applications.reconstruct import reconstruct as apply

    def reconstruct_scan(scan: "InputScan") -> "GeneratedVolumes":
        return apply(bench.models, scan.z_0, scan.encoder_volume)

    bench.run(names, reconstruct_scan, detail=detail)
