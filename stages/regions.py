"""Where in the brain volumes differ, and by how much."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stages.common_options import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from pipeline.imaging.atlas.parcellation import Parcellation
    from pipeline.regions.cases import Case
    from pipeline.stores.volumes import VolumeStore
    from schemas.grid import Grid
    from schemas.results import RegionMetrics

    Source = tuple[Grid, Iterator[Case], int]

SYN = (
    "volumes made with registration syn: each was bent onto the template, which takes away much of"
    " the change between visits; preprocess with registration affine to measure it"
)


def regions(
    context: typer.Context,
    *,
    out: Annotated[
        Path, typer.Option(help="Folder for tables and pictures; the report looks in regions/.")
    ],
    made: Annotated[
        Path | None,
        typer.Option(
            help="Folder of `manipulate`, `interpolate` or `forecast`: what was made of each scan"
            " against its own."
        ),
    ] = None,
    volumes: Annotated[
        Path | None,
        typer.Option(help="volumes.zarr: for visits, and for --space native."),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="manifest.csv with the months of the visits.")
    ] = None,
    a: Annotated[str | None, typer.Option("--a", help="Earlier visit, with --b.")] = None,
    b: Annotated[
        str | None,
        typer.Option(
            "--b", help="Later visit. Without --a and --b: first and last visit of all people."
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Column of the manifest that groups people, as diagnosis.")
    ] = None,
    atlas: Annotated[
        Path | None,
        typer.Option(help="NIfTI of labels in MNI152 instead of Desikan–Killiany; needs --labels."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="TSV or CSV of the atlas: index and name.")
    ] = None,
    own_regions: Annotated[
        bool,
        typer.Option(
            help="Find each person's own regions by a deformation; without, those of the"
            " template's places are taken, which saves some seconds a scan."
        ),
    ] = True,
    space: Annotated[
        Literal["mni", "native"],
        typer.Option(help="Whose millilitres, and the space of the maps."),
    ] = "mni",
    maps: Annotated[
        bool, typer.Option("--maps", help="Write a map a case and measure as NIfTI.")
    ] = False,
) -> None:
    """Measure the change of volume and of intensity of every brain region.

    Example: pipeline regions --made made --out reports/regions
    """
    settings: Settings = context.obj
    settings.params()
    from pipeline.regions.judge import RegionRun
    from pipeline.regions.meter import RegionMeter
    from pipeline.runtime.progress import progress
    from schemas.results import RegionMetrics

    _check(made, volumes, manifest, a, b, space)
    chosen = _parcellation(atlas, labels)
    store = _open(volumes, space)
    metrics = RegionMetrics(atlas=chosen.name, compared="", space=space)
    if made is not None:
        grid, cases, count = _of_made(made, store, metrics)
    else:
        assert manifest is not None
        assert store is not None
        grid, cases, count = _of_visits(store, manifest, a, b, metrics)
    run = RegionRun(
        meter=RegionMeter(parcellation=chosen, grid=grid, own_regions=own_regions),
        out=out,
        space=space,
        maps=maps,
    )
    changes = run.measure(progress(cases, total=count, label="regions"), metrics)
    groups = _by_group(changes)
    if by is not None:
        groups |= _grouped(changes, manifest, by)
    run.finish(changes, groups, metrics)
    for line in metrics.remarks:
        typer.echo(line, err=True)
    _say(changes, out)


def check_regions(*, asked: bool, space: str) -> None:
    """Refuse `--regions` of an application, before work is done, where it could not be kept.

    Raises
    ------
    PipelineError
        If volumes are made in native space, or there is no atlas.
    """
    if not asked:
        return
    from schemas.errors import ParamsError

    if space != "mni":
        raise ParamsError(
            "--regions: measured on volumes of --space mni; then `pipeline regions --made … --space"
            " native` tells them in native space"
        )
    _parcellation(None, None)


def _by_group(changes: "pd.DataFrame") -> "dict[str, pd.DataFrame]":
    return {str(name): rows for name, rows in changes.groupby("group", sort=False)}


def measure_made(made: Path) -> None:
    """Measure what an application made by region of the default atlas, into `regions` below it."""
    from pipeline.regions.judge import RegionRun
    from pipeline.regions.meter import RegionMeter
    from pipeline.runtime.progress import progress
    from schemas.results import RegionMetrics

    atlas = _parcellation(None, None)
    metrics = RegionMetrics(atlas=atlas.name, compared="", space="mni")
    grid, cases, count = _of_made(made, None, metrics)
    run = RegionRun(meter=RegionMeter(parcellation=atlas, grid=grid), out=made / "regions")
    changes = run.measure(progress(cases, total=count, label="regions"), metrics)
    run.finish(changes, _by_group(changes), metrics)
    _say(changes, run.out)


def _check(
    made: Path | None,
    volumes: Path | None,
    manifest: Path | None,
    a: str | None,
    b: str | None,
    space: str,
) -> None:
    from schemas.errors import ParamsError

    if made is None and (manifest is None or volumes is None):
        raise ParamsError("regions: give --made, or --volumes and --manifest to compare visits")
    if (a is None) != (b is None):
        raise ParamsError("--a and --b: two visits are needed; give both, or neither for everybody")
    if made is not None and a is not None:
        raise ParamsError("--made and --a: compare what was made, or two visits; give one")
    if space == "native" and volumes is None:
        raise ParamsError("--space native: give the --volumes that know the way back")


def _of_made(made: Path, store: "VolumeStore | None", metrics: "RegionMetrics") -> "Source":
    """Return grid, cases and their number of a folder of made volumes."""
    from pipeline.regions.cases import made_cases, read_made

    grid, documents = read_made(made, store)
    metrics.compared = "volumes made of scans, with those at scale 0 or the first place"
    metrics.remarks += _remarks(documents)
    native = store if metrics.space == "native" else None
    return grid, made_cases(made, documents, native), len(documents)


def _of_visits(
    store: "VolumeStore",
    manifest: Path,
    a: str | None,
    b: str | None,
    metrics: "RegionMetrics",
) -> "Source":
    """Return grid, cases and their number of visits."""
    from pipeline.cohort.manifest import read_manifest
    from pipeline.regions.cases import (
        first_and_last_visits,
        named_visits,
        registered_by_syn,
        visit_case,
    )

    table, scan_ids = read_manifest(manifest), store.attributes.scan_ids
    if a is not None and b is not None:
        pairs = [named_visits(table, scan_ids, a, b)]
    else:
        pairs, metrics.skipped = first_and_last_visits(table, scan_ids)
    metrics.compared = "a later visit with an earlier one, laid on each other halfway"
    if registered_by_syn(store):
        metrics.compared = "a later visit with an earlier one, both laid on the template by SyN"
        metrics.remarks.append(SYN)
    cases = (visit_case(store, first, second, "later visit") for first, second in pairs)
    return store.attributes.grid, cases, len(pairs)


def _parcellation(atlas: Path | None, labels: Path | None) -> "Parcellation":
    from pipeline.imaging.atlas.parcellation import desikan_killiany, read_parcellation
    from schemas.errors import ParamsError

    if (atlas is None) != (labels is None):
        raise ParamsError("--atlas and --labels: an atlas needs its table; give both")
    if atlas is None or labels is None:
        return desikan_killiany()
    return read_parcellation(atlas, labels)


def _open(volumes: Path | None, space: str) -> "VolumeStore | None":
    if volumes is None:
        return None
    from pipeline.regions.cases import registered_by_syn
    from pipeline.stores.volumes import open_volumes
    from schemas.errors import ContractError

    store = open_volumes(volumes)
    if space == "native" and registered_by_syn(store):
        raise ContractError(
            f"{volumes}: made with registration syn, which keeps no way back to native space; use"
            " --space mni"
        )
    return store


def _remarks(documents: list[dict[str, object]]) -> list[str]:
    """Return what was said of the volumes when they were made, once each."""
    said = [str(line) for document in documents for line in document.get("remarks") or []]  # type: ignore[attr-defined]
    return list(dict.fromkeys(said))


def _grouped(changes: "pd.DataFrame", manifest: Path | None, by: str) -> "dict[str, pd.DataFrame]":
    """Return the rows of each group of people, told by their first visit's column."""
    from pipeline.cohort.manifest import read_manifest
    from schemas.errors import ContractError, ParamsError

    if manifest is None:
        raise ParamsError(f"--by {by}: give the --manifest that has this column")
    table = read_manifest(manifest).set_index("scan_id")
    if by not in table:
        raise ContractError(f"{manifest}: no column {by}")
    values = changes["scan_id"].map(table[by])
    return {
        f"{group}, {by} {value}": rows
        for (group, value), rows in changes.groupby([changes["group"], values], sort=False)
    }


def _say(changes: "pd.DataFrame", out: Path) -> None:
    """Print the regions that changed most, on average."""
    for group, rows in changes[changes["kind"] == "atlas"].groupby("group", sort=False):
        mean = rows.groupby("region")["volume_percent"].mean()
        most = mean.reindex(mean.abs().sort_values(ascending=False).index)[:3]
        named = ", ".join(f"{name} {value:+.1f} %" for name, value in most.items())
        typer.echo(f"{group}: {named}")
    typer.echo(f"{out / 'regions.csv'}")
