"""Brain age: what age each scan looks, by fits without its person."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def brain_age(
    context: typer.Context,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv with ages.")],
    semantics: Annotated[Path, typer.Option(help="semantics.zarr of the embed stage.")],
    out: Annotated[
        Path,
        typer.Option(help="Folder for metrics and brain_age.csv; the report looks in brain-age/."),
    ],
    crossfit: Annotated[
        Path | None,
        typer.Option(help="semantics.zarr of the crossfit stage, whose y_sem is used instead."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Whom to learn from: diagnosis:CN. Default: everybody."),
    ] = None,
    site: Annotated[str, typer.Option(help="Column that becomes `site` in the table.")] = "site",
) -> None:
    """Predict the age of every scan out of fold, with its gap and an interval.

    Example: pipeline brain-age --manifest data/cohort/manifest.csv --semantics data/semantics.zarr
    --out reports/brain-age
    """
    settings: Settings = context.obj
    from pipeline.cohort.manifest import read_manifest
    from pipeline.measurement.brain_age import brain_age as judge
    from pipeline.probes.features import semantic_table
    from pipeline.runtime.files import write_atomic, write_json
    from pipeline.stores.open_store import OpenStore
    from pipeline.stores.out_of_fold import read_out_of_fold
    from schemas.errors import ParamsError

    chosen = None
    if reference is not None:
        column, _, value = reference.partition(":")
        if not (column and value):
            raise ParamsError(f"--reference {reference}: expected column:value, as diagnosis:CN")
        chosen = (column, value)
    store = OpenStore(semantics, kind="semantics")
    table = semantic_table(store, read_manifest(manifest))
    scan_ids = list(table["scan_id"])
    y_sem = store.read("y_sem")[store.rows_of(scan_ids)]
    codes = None
    if crossfit is not None:
        codes = read_out_of_fold(crossfit, ldae=store.attributes.digests["ldae"])
    if codes is not None:
        y_sem = codes.y_sem[codes.rows_of(scan_ids)]
    metrics, scans = judge(
        y_sem,
        table,
        settings.params().probe,
        reference=chosen,
        site=site,
        crossfit=codes is not None,
    )
    write_json(out / "metrics.json", metrics.model_dump())
    write_atomic(out / "brain_age.csv", scans.to_csv(index=False))
    typer.echo(
        f"brain age: mean absolute error {metrics.error} years; the median age errs by"
        f" {metrics.chance:.2f}"
    )
    for line in metrics.remarks:
        typer.echo(line, err=True)
    typer.echo(f"{out / 'brain_age.csv'}: {metrics.scans} scans of {metrics.people} subjects")
