"""Stage 8: what linear probes find in y_sem."""

from pathlib import Path
from typing import Annotated

import typer

from stages.settings import Settings


def probe(
    settings: Settings,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv with labels and split.")],
    semantics: Annotated[Path, typer.Option(help="semantics.zarr of the embed stage.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics, predictions and directions.")],
    latents: Annotated[
        Path | None, typer.Option(help="latents.zarr, for the baselines on latents.")
    ] = None,
) -> None:
    """Fit linear probes on y_sem, beside baselines, judged on subjects never trained on.

    Example: pipeline probe --manifest data/cohort/manifest.csv --semantics data/semantics.zarr
    --latents data/latents.zarr --out reports/probe
    """
    from pipeline.cohort.manifest import read_manifest
    from pipeline.compute import write_atomic, write_json
    from pipeline.evaluation.directions import write_directions
    from pipeline.evaluation.features import collect_features
    from pipeline.evaluation.headline import read_headline
    from pipeline.evaluation.probes import fit_probes
    from pipeline.stores.latents import open_latents
    from pipeline.stores.reading import OpenStore

    store = open_latents(latents) if latents else None
    features, table = collect_features(semantics, store, read_manifest(manifest))
    results = fit_probes(features, table, settings.params().probe)
    write_json(out / "metrics.json", results.document())
    write_atomic(out / "predictions.csv", results.predictions.to_csv(index=False))
    digests = OpenStore(semantics, kind="semantics").attributes.digests
    write_directions(out / "directions.json", results.directions, digests=digests)
    for line in read_headline(probe=out):
        typer.echo(line)
    for target, reason in results.skipped.items():
        typer.echo(f"skipped {target}: {reason}", err=True)
