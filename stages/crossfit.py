"""Stage 8: y_sem of every scan by a model that never saw its person."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def crossfit(
    context: typer.Context,
    *,
    latents: Annotated[Path, typer.Option(help="latents.zarr of the encode stage.")],
    manifest: Annotated[
        Path, typer.Option(help="manifest.csv; all its scans take part, whatever their split.")
    ],
    ldae: Annotated[
        Path, typer.Option(help="Model of train-ldae, in whose space all codes are brought.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for semantics.zarr and the folds' models.")],
    volumes: Annotated[
        Path | None,
        typer.Option(help="volumes.zarr; read where train-ldae reads them."),
    ] = None,
    alignment: Annotated[
        Path | None,
        typer.Option(
            help="latents.zarr of scans of others (phantoms), on which summaries are aligned;"
            " default: the scans that each fold was trained on."
        ),
    ] = None,
) -> None:
    """Train both stages without each fold of subjects, and embed the fold by what never saw it.

    Off by default (`crossfit.folds: 0`): then an empty result is written at once.

    Example: pipeline crossfit --latents data/latents.zarr --manifest data/cohort/manifest.csv
    --ldae models/ldae --out data/crossfit --set crossfit.folds=5
    """
    settings: Settings = context.obj
    params = settings.params()
    if params.crossfit.folds == 0:
        from pipeline.stores.out_of_fold import leave_out

        leave_out(out)
        typer.echo(f"{out}: no cross-fitting (crossfit.folds is 0)")
        return
    from pipeline.stores.latents import open_latents

    store = open_latents(latents)
    from pipeline.cohort.bundled_people import takes_bundled_ldae, warning_of_seen_in_folds
    from pipeline.cohort.manifest import read_manifest
    from pipeline.crossfit.alignment_scans import load_alignment
    from pipeline.crossfit.run import cross_fit
    from pipeline.models.frozen import load_ldae
    from pipeline.runtime.progress import counted
    from pipeline.stores.volumes import open_volumes

    device = settings.device()
    model = load_ldae(ldae, device=device)
    table = read_manifest(manifest)
    warning = warning_of_seen_in_folds(table) if takes_bundled_ldae(params) else None
    if warning is not None:
        typer.echo(f"{manifest}: {warning}", err=True)
    result = cross_fit(
        store,
        table,
        model,
        params,
        out,
        device=device,
        volumes=open_volumes(volumes) if volumes else None,
        alignment=load_alignment(alignment, store) if alignment else None,
    )
    scans, people = counted(result.scans, "scan"), counted(result.subjects, "subject")
    typer.echo(
        f"{out}: y_sem of {scans} of {people} in {result.folds} folds, aligned on"
        f" {result.aligned_on}"
    )
