"""Stage 11: write the report, one self-contained HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def report(
    context: typer.Context,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv.")],
    out: Annotated[Path, typer.Option(help="HTML file to write; figures go beside it.")],
    qc: Annotated[Path | None, typer.Option(help="Quality-control table.")] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Table of refused scans.")] = None,
    volumes: Annotated[Path | None, typer.Option(help="volumes.zarr.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of ae, ldm and ldae.")] = None,
    evaluate: Annotated[Path | None, typer.Option(help="Folder of the evaluate stage.")] = None,
    probe: Annotated[Path | None, typer.Option(help="Folder of the probe stage.")] = None,
) -> None:
    """Write the report; parts that were not run say so.

    Example: pipeline report --manifest data/cohort/manifest.csv --evaluate reports/evaluate
    --probe reports/probe --out reports/report.html
    """
    settings: Settings = context.obj
    from pipeline.report.context import load_context
    from stages.headline import read_headline

    study = load_context(
        params=settings.params(),
        manifest=manifest,
        qc=qc,
        quarantine=quarantine,
        volumes=volumes,
        models=models,
        evaluate=evaluate,
        probe=probe,
    )
    from pipeline.report.render import render_report

    render_report(study, out)
    for line in read_headline(evaluate=evaluate, probe=probe):
        typer.echo(line)
    typer.echo(f"report: {out}")
