"""Stage 9: fit probes on y_sem, and on the baselines that it must beat."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def probe(
    context: typer.Context,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv with labels and split.")],
    semantics: Annotated[Path, typer.Option(help="semantics.zarr of the embed stage.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics, predictions and directions.")],
    latents: Annotated[
        Path | None, typer.Option(help="latents.zarr, for the baselines on latents.")
    ] = None,
    volumes: Annotated[
        Path | None, typer.Option(help="volumes.zarr, for the baselines on voxels.")
    ] = None,
    ldae: Annotated[
        Path | None,
        typer.Option(help="Model of train-ldae, for its encoder before training."),
    ] = None,
    crossfit: Annotated[
        Path | None,
        typer.Option(
            help="semantics.zarr of the crossfit stage: all splits are judged, by leaving its folds"
            " out, and directions are fitted on its codes. Its empty result counts as none."
        ),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(
            help="directions.json of another run, or of an imported LDAE: its probes are applied"
            " to these scans, and nothing is fitted."
        ),
    ] = None,
) -> None:
    """Fit probes on y_sem, beside baselines, judged on subjects never trained on.

    With --apply, judge probes that were fitted before or elsewhere, on scans they never saw.

    Example: pipeline probe --manifest data/cohort/manifest.csv --semantics data/semantics.zarr
    --latents data/latents.zarr --volumes data/volumes.zarr --ldae models/ldae --out reports/probe
    """
    settings: Settings = context.obj
    if apply is not None:
        _apply(settings, apply, manifest=manifest, semantics=semantics, out=out)
        return
    from pipeline.stores.open_store import OpenStore

    codes_store = OpenStore(semantics, kind="semantics")
    import pandas as pd

    from pipeline.cohort.bundled_people import is_seen, takes_bundled_ldae, warning_of_seen
    from pipeline.cohort.manifest import read_manifest
    from pipeline.models.direction import write_directions
    from pipeline.probes.feature_sets import read_inputs
    from pipeline.probes.features import semantic_table
    from pipeline.probes.protocols import FIT_SPLITS, fit_probes
    from pipeline.probes.readouts import readouts_of
    from pipeline.runtime.files import write_json, write_parquet
    from pipeline.runtime.progress import counted
    from pipeline.stores.latents import open_latents
    from pipeline.stores.out_of_fold import read_out_of_fold
    from pipeline.stores.volumes import open_volumes
    from stages.headline import read_headline

    params = settings.params().probe
    digests = codes_store.attributes.digests
    table = semantic_table(codes_store, read_manifest(manifest))
    inputs = read_inputs(
        codes_store,
        table,
        params,
        settings.device(),
        latents=open_latents(latents) if latents else None,
        volumes=open_volumes(volumes) if volumes else None,
    )
    left_out = 0
    y_sem = codes_store.read("y_sem")[codes_store.rows_of(list(table["scan_id"]))]
    own, codes = y_sem, None
    if crossfit is not None:
        codes = read_out_of_fold(crossfit, ldae=digests["ldae"], latents=inputs.latents)
    if codes is not None:
        y_sem = codes.in_place_of(y_sem, table, splits=FIT_SPLITS)
        digests = digests | codes.digests
    sets = inputs.fit(y_sem, table, ldae, made_by=digests["ldae"], own=own)
    folds = None if codes is None else inputs.cross_fit(codes, encoders=ldae is not None)
    everything = settings.params()
    if folds is not None and everything.crossfit.judge == "unseen":
        seen = is_seen(table) if takes_bundled_ldae(everything) else pd.Series(False, table.index)
        folds = replace(folds, judged=~seen.to_numpy())
        left_out = table.loc[seen, "subject_id"].nunique()
    results = fit_probes(sets.features, table, params, heads=sets.heads, crossfit=folds)
    if everything.autoencoder.source == "bundled":
        warning = warning_of_seen(table)
        results.remarks |= {} if warning is None else {"seen": warning}
    if left_out:
        results.remarks |= {
            "seen_in_folds": f"cross-fitted figures leave out {counted(left_out, 'subject')} whom"
            " the bundled LDAE was trained on; they help the fits alone (crossfit.judge: everybody"
            " judges them)"
        }
    lines = sets.remarks
    results.remarks |= {f"rivals/{name}": line for name, line in lines.items()}
    write_json(out / "metrics.json", results.document().model_dump())
    write_parquet(out / "predictions.parquet", results.predictions)
    write_directions(
        out / "directions.json",
        results.directions,
        digests=digests,
        readouts=readouts_of(results),
        fitted_subjects=table["subject_id"][table["split"].isin(FIT_SPLITS)].astype(str),
    )
    for line in read_headline(probe=out):
        typer.echo(line)
    for remark in results.remarks.values():
        typer.echo(remark, err=True)


def _apply(settings: Settings, path: Path, *, manifest: Path, semantics: Path, out: Path) -> None:
    """Judge the probes of a directions.json on new scans."""
    from pipeline.cohort.manifest import read_manifest
    from pipeline.probes.applied import apply_probes, write_known_spread
    from pipeline.probes.features import semantic_table
    from pipeline.runtime.files import write_atomic, write_json, write_parquet
    from pipeline.runtime.progress import counted
    from pipeline.stores.open_store import OpenStore
    from stages.headline import read_headline

    store = OpenStore(semantics, kind="semantics")
    table = semantic_table(store, read_manifest(manifest))
    y_sem = store.read("y_sem")[[store.row_of[scan] for scan in table["scan_id"]]]
    applied = apply_probes(
        path,
        y_sem,
        table,
        settings.params().probe,
        ldae_digest=str(store.attributes.digests["ldae"]),
    )
    metrics = applied.results.document().model_copy(update={"applied": str(path)})
    write_json(out / "metrics.json", metrics.model_dump())
    write_parquet(out / "predictions.parquet", applied.results.predictions)
    write_atomic(out / "scores.csv", applied.scores.to_csv(index=False))
    for target in write_known_spread(path, applied.scores, out):
        typer.echo(f"{out / 'directions.json'}: spread of {target} measured on these scans")
    for line in read_headline(probe=out):
        typer.echo(line)
    for remark in applied.results.remarks.values():
        typer.echo(remark, err=True)
    typer.echo(f"{out / 'scores.csv'}: scores of {counted(len(table), 'scan')}")
