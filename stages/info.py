"""Describe a store, a model folder or a folder of results."""

from pathlib import Path
from typing import Annotated, Any

import typer


def info(
    *,
    path: Annotated[Path, typer.Argument(help="A store, a model folder, or a reports folder.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="Of a store: count splits by this manifest.csv; else the one beside it."),
    ] = None,
) -> None:
    """Say what a store or model is and what made it, or the headline figures of a study.

    Of a latent store also the statistics of each channel: mean and std of the posterior means, and
    sigma, the root of the mean posterior variance.

    Example: pipeline info data/latents.zarr
    """
    import json

    from pipeline.models.model_folder import CONFIG, read_config
    from schemas.errors import ContractError
    from stages.headline import read_headline

    path = path.parent if path.name == "report.html" else path
    if (path / CONFIG).is_file():
        config = read_config(path / CONFIG)
        facts = {name: config.get(name) for name in ("kind", "weights_sha256", "metrics")}
    elif (path / "report.html").is_file():
        for line in read_headline(evaluate=path / "evaluate", probe=path / "probe"):
            typer.echo(line)
        typer.echo(f"report: {(path / 'report.html').resolve()}")
        return
    elif _is_no_store(path):
        parts = ("reports", "models/ldae", "models/ae", "data/latents.zarr", "data/volumes.zarr")
        existing = [str(path / part) for part in parts if (path / part).exists()]
        remedy = f"give one of {', '.join(existing)}" if existing else "`dvc repro` makes them"
        raise ContractError(f"{path}: no store, no model, no report.html (yet?); {remedy}")
    else:
        facts = _store_facts(path, manifest)
    for name, value in facts.items():
        typer.echo(f"{name:16} {json.dumps(value) if isinstance(value, dict) else value}")
    size = sum(f.stat().st_size for f in (path, *path.rglob("*")) if f.is_file())
    if size:  # object storage cannot always be listed
        typer.echo(f"{'size':16} {size / 1e6:.1f} MB")


def _is_no_store(path: Path) -> bool:
    from pipeline.stores.location import is_remote

    named_so = path.suffix == ".zarr" or path.is_file() or is_remote(path)
    return not named_so and not (path / "zarr.json").is_file()


def _store_facts(path: Path, manifest: Path | None) -> dict[str, Any]:
    from pipeline.cohort.manifest import read_manifest
    from pipeline.stores.latents import open_latents
    from pipeline.stores.location import is_folder
    from pipeline.stores.open_store import OpenStore
    from pipeline.stores.summary import find_manifest, latent_statistics, split_counts

    store = OpenStore(path)
    facts = store.attributes.model_dump(exclude={"scan_ids", "fingerprints"})
    facts |= {
        "scans": len(store),
        "arrays": {name: str(array.shape) for name, array in store.group.arrays()},
    }
    manifest = manifest or (find_manifest(path) if is_folder(path) else None)
    if manifest is not None:
        counts = split_counts(store, read_manifest(manifest))
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        facts["splits"] = f"{listed} ({manifest})"
    if store.attributes.kind == "latents":
        count, channels = latent_statistics(open_latents(path))
        for i, channel in enumerate(channels):
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in channel.items())
            facts[f"channel {i}"] = f"{numbers} ({count} scans)"
    return facts
