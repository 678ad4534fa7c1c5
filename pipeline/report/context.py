"""Read the results of a study for the report; a part whose files are missing was not run."""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.report.metrics_files import AnyResult, read_json, read_metrics
from pipeline.report.provenance import started_elsewhere, whose_weights
from schemas.errors import ContractError
from schemas.grid import Grid
from schemas.manifest import NUMERIC_COLUMNS, SELECTION, VOLUMES
from schemas.params import Params
from schemas.results import (
    BrainAgeMetrics,
    EvaluateMetrics,
    LongitudinalMetrics,
    ProbeMetrics,
    RegionMetrics,
    ScannerMetrics,
)

if TYPE_CHECKING:  # it brings matplotlib
    from pipeline.figures.brain_slices import Tile

MODELS = ("ae", "ldm", "ldae")

PACKAGES = (
    "ldae-pipeline",
    "torch",
    "monai",
    "lightning",
    "zarr",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "nibabel",
    "antspyx",
    "deepbet",
    "nilearn",
    "matplotlib",
)


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """The results of a study: parameters, tables, metrics, pictures."""

    params: Params
    """All sections, as they were run."""
    manifest: pd.DataFrame
    """One row a scan, schemas.manifest.MANIFEST_COLUMNS and labels."""
    phantom: bool
    """The scans are synthetic: every report says so first."""
    qc: pd.DataFrame | None = None
    """scan_id, status (pass, warn, fail), reasons, and the QC numbers."""
    quarantine: pd.DataFrame | None = None
    """schemas.manifest.QUARANTINE_COLUMNS."""
    tiles: "tuple[Tile, ...]" = ()
    """Preprocessed scans for the QC mosaic."""
    num_volumes: int | None = None
    """Scans in volumes.zarr."""
    grid: Grid | None = None
    """Shape and affine of the volumes."""
    logs: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """`ae`, `ldm`, `ldae` to their training log."""
    started: bool = False
    """A stage of the LDAE went on from a finished model."""
    evaluate: EvaluateMetrics | None = None
    per_scan: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Part of the evaluation to its table, one row a scan and whatever else was varied."""
    pictures: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """Part of the evaluation to its arrays: scan_id (n,), and volumes (n, …, X, Y, Z), uint8."""
    ae_quality: Mapping[str, Any] | None = None
    """ae_quality.summarise."""
    ae_error_map: bytes | None = None
    """PNG."""
    probe: ProbeMetrics | None = None
    predictions: pd.DataFrame | None = None
    """probes.PREDICTION_COLUMNS."""
    scanner: ScannerMetrics | None = None
    brain_age: BrainAgeMetrics | None = None
    longitudinal: LongitudinalMetrics | None = None
    regions: RegionMetrics | None = None
    region_pictures: Mapping[str, bytes] = field(default_factory=dict)
    """Group to the PNG of its glass brain."""
    versions: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Package to version and licence."""
    date: str = ""
    """Day of the report, ISO 8601."""
    whose: tuple[str, ...] = ()
    """A sentence for each model that others trained."""


def load_context(
    *,
    params: Params,
    manifest: Path,
    qc: Path | None = None,
    quarantine: Path | None = None,
    volumes: Path | None = None,
    models: Path | None = None,
    evaluate: Path | None = None,
    probe: Path | None = None,
) -> ReportContext:
    """Read the results that exist; a path that is None or absent leaves its section `not run`.

    `models` holds `ae/log.csv`, `ldm/log.csv`, `ldae/log.csv`. `evaluate` holds `metrics.json`,
    `per_scan/*.parquet`, `pictures/*.npz`; `probe` holds `metrics.json`, `predictions.parquet`;
    `ae`, beside `evaluate`, what `evaluate --what ae` wrote; `scanner`, `brain-age` and
    `longitudinal` and `regions`, beside `evaluate` or `probe`, what these commands wrote.

    Raises
    ------
    ContractError
        If the manifest is missing, or a file that is there cannot be read.
    """
    if not manifest.is_file():
        raise ContractError(f"{manifest}: no manifest; run `pipeline cohort` first")
    table = _read_table(manifest)
    assert table is not None
    missing = [name for name in ("scan_id", "subject_id", "split") if name not in table]
    if missing:
        raise ContractError(f"{manifest}: no column {', '.join(missing)}; give manifest.csv")
    for column in NUMERIC_COLUMNS:
        if column in table:
            table[column] = pd.to_numeric(table[column], errors="coerce")
    quality = _read_table(qc)
    tiles, num_volumes, grid = _read_tiles(volumes, quality, params.report.mosaic_scans)
    logs = {name: _read_table(models / name / "log.csv") for name in MODELS} if models else {}
    metrics = _read_study(evaluate and evaluate / "metrics.json")
    beside = evaluate or probe
    reports = None if beside is None else beside.parent
    return ReportContext(
        params=params,
        manifest=table,
        phantom={*VOLUMES, "atrophy"} <= set(table.columns),
        qc=quality,
        quarantine=_faulty(_read_table(quarantine)),
        tiles=tiles,
        num_volumes=num_volumes,
        grid=grid,
        logs={
            name: log.apply(pd.to_numeric, errors="coerce")
            for name, log in logs.items()
            if log is not None and len(log)
        },
        evaluate=metrics,
        whose=whose_weights(models, metrics),
        started=started_elsewhere(models),
        per_scan=_read_parts(evaluate, "per_scan", ".parquet", _read_parquet),
        pictures=_read_parts(evaluate, "pictures", ".npz", _read_arrays),
        ae_quality=_read_ae_quality(evaluate and evaluate.parent / "ae" / "metrics.json"),
        ae_error_map=_read_bytes(evaluate and evaluate.parent / "ae" / "error_map.png"),
        probe=read_metrics(probe and probe / "metrics.json", ProbeMetrics),
        predictions=_read_predictions(probe),
        scanner=_read_command(reports, "scanner", ScannerMetrics),
        brain_age=_read_command(reports, "brain-age", BrainAgeMetrics),
        longitudinal=_read_command(reports, "longitudinal", LongitudinalMetrics),
        regions=_read_command(reports, "regions", RegionMetrics),
        region_pictures=_read_parts(reports, "regions", "_glass.png", Path.read_bytes),
        versions=installed_versions(),
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    )


def installed_versions() -> dict[str, tuple[str, str]]:
    """Return version and licence of the packages that decide the results."""
    versions = {}
    for package in PACKAGES:
        try:
            about = metadata.metadata(package)
        except metadata.PackageNotFoundError:
            continue
        versions[package] = (str(about["Version"]), _licence(about))
    return versions


def _licence(about: Any) -> str:
    """Return a licence in a few words: expression, classifier, or the first line of its text."""
    if about.get("License-Expression"):
        return str(about["License-Expression"])
    classifiers = about.get_all("Classifier") or []
    named = [c.rsplit(" :: ", 1)[-1] for c in classifiers if c.startswith("License ::")]
    text = str(about.get("License") or "").strip().splitlines()
    return ", ".join(named) or (text[0][:60] if text else "see the package")


def _read_table(path: Path | None) -> pd.DataFrame | None:
    """Return a CSV as text cells, empty where missing; ids such as 001 stay as they are."""
    if path is None or not path.is_file() or path.stat().st_size == 0:
        return None
    try:
        return pd.read_csv(path, dtype=str, encoding="utf-8")
    except (ValueError, OSError) as error:
        raise ContractError(f"{path}: not a readable CSV table ({error!s:.100})") from error


def _faulty(quarantine: pd.DataFrame | None) -> pd.DataFrame | None:
    """Leave out the rows of images that are no fault: other series, results, second choices."""
    if quarantine is None or "stage" not in quarantine:
        return quarantine
    return quarantine[quarantine["stage"] != SELECTION].reset_index(drop=True)


def _read_predictions(folder: Path | None) -> pd.DataFrame | None:
    path = None if folder is None else folder / "predictions.parquet"
    return _read_parquet(path) if path is not None and path.is_file() else None


def _read_parts(
    folder: Path | None, name: str, suffix: str, read: Callable[[Path], Any]
) -> dict[str, Any]:
    """Return every file of a subfolder of the evaluation, by its stem; empty ones are left out."""
    files = [] if folder is None else sorted((folder / name).glob(f"[!.]*{suffix}"))
    parts = {path.stem: read(path) for path in files}
    return {stem: value for stem, value in parts.items() if len(value)}


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise ContractError(
            f"{path}: not readable ({error!s:.100}); run its stage again"
        ) from error


def _read_ae_quality(path: Path | None) -> dict[str, Any] | None:
    """Return what `evaluate --what ae` wrote; a model called `ae` has metrics too."""
    metrics = read_json(path)
    return metrics if metrics is not None and "ms_ssim_scales" in metrics else None


def _read_study(path: Path | None) -> EvaluateMetrics | None:
    metrics = read_json(path)
    if metrics is not None and "ms_ssim_scales" in metrics:
        raise ContractError(
            f"{path}: of `evaluate --what ae`; the study's metrics belong there, these beside, in"
            " ae/"
        )
    return read_metrics(path, EvaluateMetrics)


def _read_command(reports: Path | None, name: str, kind: type[AnyResult]) -> AnyResult | None:
    """Return what a command that is no stage left in its folder, or None."""
    return read_metrics(None if reports is None else reports / name / "metrics.json", kind)


def _read_bytes(path: Path | None) -> bytes | None:
    return path.read_bytes() if path is not None and path.is_file() else None


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError) as error:
        raise ContractError(f"{path}: not readable ({error!s:.100}); run `evaluate`") from error


def _read_tiles(
    path: Path | None, quality: pd.DataFrame | None, count: int
) -> "tuple[tuple[Tile, ...], int | None, Grid | None]":
    """Return tiles of the scans with a warning first, then of others spread over the store."""
    if path is None or not path.exists():
        return (), None, None
    from pipeline.figures.brain_slices import Tile
    from pipeline.stores.volumes import open_volumes

    store = open_volumes(path)
    ids = store.attributes.scan_ids
    warned: set[str] = set()
    if quality is not None and "status" in quality:
        warned = set(quality.loc[quality["status"] != "pass", "scan_id"])
    suspicious = [i for i, scan_id in enumerate(ids) if scan_id in warned][: count // 2]
    others = [i for i, scan_id in enumerate(ids) if scan_id not in warned]
    room = min(len(others), count - len(suspicious))
    spread = [others[i] for i in np.linspace(0, len(others) - 1, room).astype(int)] if room else []
    tiles = tuple(
        Tile(ids[i], store.read_row(i).volume, warn=ids[i] in warned)
        for i in (*suspicious, *spread)
    )
    return tiles, len(ids), store.attributes.grid
