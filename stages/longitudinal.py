"""How measures of scans change within people over visits."""

from pathlib import Path
from typing import Annotated

import typer


def longitudinal(
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv with months or ages.")],
    measures: Annotated[
        Path,
        typer.Option(help="CSV of scan_id and numbers: brain_age.csv, FreeSurfer volumes, any."),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for metrics and changes.csv; the report looks in longitudinal/."),
    ],
    by: Annotated[str | None, typer.Option(help="Column that groups people, as diagnosis.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A column to judge; may be repeated. Default: all.")
    ] = None,
    random_slopes: Annotated[
        bool,
        typer.Option("--random-slopes", help="A slope of each person; needs three visits."),
    ] = False,
) -> None:
    """Tell how measures change a year, within people and by group, and how scans repeat.

    Example: pipeline longitudinal --manifest data/cohort/manifest.csv
    --measures reports/brain-age/brain_age.csv --by diagnosis --out reports/longitudinal
    """
    from pipeline.cohort.manifest import read_manifest
    from pipeline.measurement.longitudinal import judge_change, read_measures
    from pipeline.runtime.files import write_atomic, write_json

    metrics, changes = judge_change(
        read_measures(measures, column or ()),
        read_manifest(manifest),
        by=by,
        random_slopes=random_slopes,
    )
    write_json(out / "metrics.json", metrics.model_dump())
    write_atomic(out / "changes.csv", changes.to_csv(index=False))
    for name, result in metrics.measures.items():
        for group, slope in result.slope.items():
            typer.echo(f"{name}, {group}: {slope} a year ({slope.subjects} people)")
    for line in [*metrics.remarks, *metrics.skipped.values()]:
        typer.echo(line, err=True)
    typer.echo(f"{out / 'changes.csv'}")
