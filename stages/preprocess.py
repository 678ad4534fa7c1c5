"""Stage 2: raw heads to volumes on the MNI grid."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def preprocess(
    context: typer.Context,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv of the cohort stage.")],
    out: Annotated[Path, typer.Option(help="volumes.zarr to write.")],
    qc: Annotated[Path, typer.Option(help="Quality-control table to write (CSV).")],
    quarantine: Annotated[Path, typer.Option(help="Table of refused scans to write (CSV).")],
    overrides_csv: Annotated[
        Path | None,
        typer.Option(
            "--overrides", help="Verdicts by hand (CSV: scan_id,status,reason); may be absent."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 1 if any scan is refused.")] = False,
) -> None:
    """Strip, correct, register, resample and scale every scan.

    Example: pipeline preprocess --manifest data/cohort/manifest.csv --out data/volumes.zarr
    --qc data/qc.csv --quarantine data/quarantine.csv
    """
    settings: Settings = context.obj
    from pipeline.workers.fork_server import start_fork_server

    if settings.device_name != "auto":
        settings.device()
    if settings.workers != 1 and settings.scheduler is None:
        start_fork_server()

    import pandas as pd

    from pipeline.cohort.candidates import FILE, read_candidates
    from pipeline.cohort.manifest import read_manifest
    from pipeline.preprocessing.qc_overrides import check_known, read_overrides
    from pipeline.preprocessing.run import preprocess_cohort

    refused = manifest.with_name("quarantine.csv")
    scans = read_manifest(manifest)
    overrides = read_overrides(overrides_csv) if overrides_csv is not None else {}
    check_known(overrides, scans["scan_id"], where=str(overrides_csv))
    summary = preprocess_cohort(
        scans,
        settings.params().preprocess,
        manifest_dir=manifest.parent,
        out=out,
        qc_csv=qc,
        quarantine_csv=quarantine,
        prior_quarantine=pd.read_csv(refused, dtype=str) if refused.is_file() else pd.DataFrame(),
        workers=settings.num_workers(),
        scheduler=settings.scheduler,
        device=settings.device_name,
        overrides=overrides,
        candidates=read_candidates(manifest.with_name(FILE)),
    )
    typer.echo(
        f"{out}: {summary.passed} passed, {summary.warned} with warnings,"
        f" {summary.quarantined} quarantined ({quarantine}), {summary.reused} from before,"
        f" {summary.seconds:.0f} s"
    )
    if strict and summary.quarantined:
        raise typer.Exit(1)
