"""What the scanner does to y_sem: site, repeated scans, shares of the variance."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.common_options import Settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from pipeline.stores.open_store import OpenStore


def scanner(
    context: typer.Context,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv with a column of sites.")],
    semantics: Annotated[Path, typer.Option(help="semantics.zarr of the embed stage.")],
    out: Annotated[
        Path, typer.Option(help="Folder for metrics and tables; the report looks in scanner/.")
    ],
    site: Annotated[
        str, typer.Option(help="Column of the manifest: scanner, hospital, field strength.")
    ] = "site",
    latents: Annotated[Path | None, typer.Option(help="latents.zarr, to compare.")] = None,
    volumes: Annotated[Path | None, typer.Option(help="volumes.zarr, to compare.")] = None,
    probe: Annotated[
        Path | None, typer.Option(help="Folder of the probe stage: how its predictions agree.")
    ] = None,
    crossfit: Annotated[
        Path | None,
        typer.Option(help="semantics.zarr of the crossfit stage, whose y_sem is judged instead."),
    ] = None,
    repeats: Annotated[
        Path | None,
        typer.Option(
            help="CSV of repeat,scan_id: scans of one visit. Default: of one person and month."
        ),
    ] = None,
) -> None:
    """Tell how much of y_sem, of latents and of volumes is the scanner's.

    Example: pipeline scanner --manifest data/cohort/manifest.csv --semantics data/semantics.zarr
    --latents data/latents.zarr --volumes data/volumes.zarr --out reports/scanner
    """
    settings: Settings = context.obj
    from pipeline.cohort.manifest import read_manifest
    from pipeline.measurement.scanner_effects import judge_scanners
    from pipeline.probes.features import semantic_table
    from pipeline.runtime.files import write_atomic, write_json
    from pipeline.stores.open_store import OpenStore

    store = OpenStore(semantics, kind="semantics")
    table = semantic_table(store, read_manifest(manifest))
    report = judge_scanners(
        _features(store, table, latents, volumes, crossfit),
        table,
        settings.params().probe,
        column=site,
        repeats=repeats,
        predictions=_predictions(probe),
    )
    metrics = report.metrics
    write_json(out / "metrics.json", metrics.model_dump())
    write_atomic(out / "numbers.csv", report.numbers.to_csv(index=False))
    for name, reading in metrics.reading.items():
        shares = metrics.shares.get(name, {})
        told = ", ".join(f"{part} {100 * share:.0f} %" for part, share in shares.items())
        typer.echo(
            f"{name}: site read with {reading.accuracy:.2f} (a guess {reading.chance:.2f})"
            f"{f'; variance: {told}' if told else ''}"
        )
    for line in [*metrics.remarks, *metrics.skipped.values()]:
        typer.echo(line, err=True)
    typer.echo(f"{out / 'metrics.json'}")


def _features(
    store: "OpenStore",
    table: "pd.DataFrame",
    latents: Path | None,
    volumes: Path | None,
    crossfit: Path | None,
) -> "dict[str, NDArray[np.floating]]":
    """Return y_sem, and principal components of latents and volumes where they are given.

    Of a cross-fitting y_sem is the out-of-fold one: a person's scans are all of one fold.
    """
    from pipeline.probes.features import fit_pca, measure_volumes, read_means
    from pipeline.stores.latents import open_latents
    from pipeline.stores.out_of_fold import read_out_of_fold
    from pipeline.stores.volumes import open_volumes

    scan_ids = list(table["scan_id"])
    features = {"y_sem": store.read("y_sem")[store.rows_of(scan_ids)]}
    if crossfit is not None:
        codes = read_out_of_fold(crossfit, ldae=store.attributes.digests["ldae"])
        if codes is not None:
            features["y_sem"] = codes.y_sem[codes.rows_of(scan_ids)]
    if latents is not None:
        flat = read_means(store, open_latents(latents), table).reshape(len(table), -1)
        features["pca_latents"] = fit_pca(flat).transform(flat)
    if volumes is not None:
        coarse = measure_volumes(open_volumes(volumes), table).coarse
        features["pca_voxels"] = fit_pca(coarse).transform(coarse)
    return features


def _predictions(folder: Path | None) -> "pd.DataFrame | None":
    """Return the predictions of the probe stage."""
    import pandas as pd

    from schemas.errors import ContractError

    if folder is None:
        return None
    path = folder / "predictions.parquet"
    if not path.is_file():
        raise ContractError(f"{path}: missing; run `pipeline probe`")
    return pd.read_parquet(path)
