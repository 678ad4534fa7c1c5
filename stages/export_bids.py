"""Write a study as BIDS-Derivatives."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def export_bids(
    context: typer.Context,
    *,
    study: Annotated[Path, typer.Option(help="Folder of the study.")] = Path(),
    out: Annotated[Path, typer.Option(help="Folder of the dataset to write, as derivatives/ldae.")],
    counterfactuals: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that `pipeline manipulate` wrote; may be given again."),
    ] = None,
) -> None:
    """Write images, masks, transforms, quality control and y_sem as BIDS-Derivatives.

    A call that was stopped goes on where it was; what is up to date is left alone.

    Example: pipeline export-bids --study . --out derivatives/ldae
    """
    settings: Settings = context.obj
    from pipeline.bids_export.export import export_bids as export
    from pipeline.bids_export.study import StudyFiles
    from pipeline.runtime.progress import counted, few
    from stages.params_file import load_params

    own = study / "params.yaml"
    file = settings.params_file or (own if own.is_file() else None)
    params = load_params(file, settings.overrides or [])
    source = None
    if params.cohort.source == "bids" and params.cohort.input is not None:
        source = study / params.cohort.input
    elif params.cohort.source == "phantom" and (study / "data" / "cohort" / "bids").is_dir():
        source = study / "data" / "cohort" / "bids"
    summary = export(
        StudyFiles.of_folder(study, source=source, leave_out=tuple(params.cohort.leave_out)),
        out,
        counterfactuals=counterfactuals or [],
        workers=settings.num_workers(),
        max_bytes=params.preprocess.max_bytes,
    )
    typer.echo(
        f"{out}: {counted(summary.scans, 'scan')}, {summary.written} written now"
        + (f", {counted(summary.counterfactuals, 'counterfactual')}" * bool(counterfactuals))
    )
    if summary.failed:
        typer.echo(f"not written: {few(list(summary.failed))}", err=True)
        raise typer.Exit(1)
