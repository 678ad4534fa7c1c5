"""Every input of a report for a small made-up study, and the page as a reader sees it."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.interpolation import summarise_interpolation
from pipeline.evaluation.manipulation import summarise_dose
from pipeline.forecasting.scores import summarise_forecasts
from pipeline.metrics.intervals import estimate, exact_share
from pipeline.metrics.reconstruction import RECONSTRUCTION_METRICS, summarise_reconstruction
from pipeline.probes.protocols import fit_probes
from pipeline.report.render import load_context, render_report
from pipeline.stores.volumes import VolumeRow, write_volumes
from schemas.manifest import VOLUMES
from schemas.params import Params
from schemas.stores import StoreAttributes

HOSTILE = 'sub-<script>alert("x")</script>&'


PARAMS = Params.model_validate(
    {
        "probe": {
            "bootstrap": 50,
            "folds": 2,
            "repeats": 1,
            "permutations": 3,
            "oracle": ["ventricle_ml"],
            "covariates": ["education"],
        },
        "report": {"max_examples": 2},
    }
)


SECTIONS = (
    "cohort",
    "quality",
    "training",
    "reconstruction",
    "inversion",
    "probes",
    "manipulation",
    "interpolation",
    "forecast",
    "generation",
    "parameters",
    "versions",
    "cite",
)


def ellipsoid(shape: tuple[int, int, int], scale: float = 1.0) -> np.ndarray:
    """Return a bright ellipsoid with a dark middle, a brain of sorts, in [0, 1]."""
    axes = [np.linspace(-1, 1, side) for side in shape]
    radius = np.sqrt(sum(g**2 for g in np.meshgrid(*axes, indexing="ij"))) / scale
    return np.where(radius < 0.8, 0.4 + 0.5 * radius, 0) * (radius > 0.2)


def write_study(
    root: Path,
    *,
    brain: Callable[[int], np.ndarray] = lambda i: ellipsoid((24, 30, 26), 1 + i / 60),
    subjects: int = 60,
    first_scan: str = HOSTILE,
    noise: float = 0.03,
) -> None:
    """Write every input of a report for a small made-up study."""
    generator = np.random.default_rng(0)
    numbers = np.arange(subjects)
    subject_ids = np.array([f"sub-{i:02d}" for i in numbers])
    scan_ids = np.array([first_scan, *(f"{s}_ses-01" for s in subject_ids[1:])])
    sick = numbers % 2
    ages = generator.uniform(55, 88, subjects).round(1)
    manifest = pd.DataFrame(
        {
            "scan_id": scan_ids,
            "subject_id": subject_ids,
            "age_years": ages,
            "sex": np.where(generator.random(subjects) < 0.5, "F", "M"),
            "diagnosis": np.where(sick == 1, "AD", "CN"),
            "split": np.array(["train", "train", "val", "test", "test", "train"])[numbers % 6],
            "site": np.array(["Lund", "Oslo"])[numbers // 6 % 2],
            "education": generator.normal(12, 3, subjects).round(1),
            "ventricle_ml": 20 + 0.7 * (ages - 55) + 12 * sick,
            **dict.fromkeys((*VOLUMES, "atrophy"), 1.0),
        }
    )
    root.mkdir(parents=True, exist_ok=True)
    manifest.to_csv(root / "manifest.csv", index=False)
    status = np.where(numbers % 7 == 0, "warn", "pass")
    reasons = np.where(status == "warn", "brain of 890 ml, usual is 950 to 2000", "")
    pd.DataFrame({"scan_id": scan_ids, "status": status, "reasons": reasons}).to_csv(
        root / "qc.csv", index=False
    )
    pd.DataFrame(
        [
            ["sub-98", "a.nii.gz", "preprocess", f"{HOSTILE}: header says 4D, expected 3D"],
            [scan_ids[2], "b.nii.gz", "preprocess", "no brain found"],
        ],
        columns=["scan_id", "path", "stage", "reason"],
    ).to_csv(root / "quarantine.csv", index=False)
    volumes = [brain(i) for i in numbers]
    write_volume_store(root / "volumes.zarr", list(scan_ids), volumes)
    write_logs(root / "models")
    write_evaluation(root / "evaluate", manifest, volumes, noise)
    y_sem = generator.normal(size=(subjects, 6))
    y_sem[:, 0] += 2 * sick
    y_sem[:, 1] += 0.15 * (ages - 70)
    results = fit_probes(
        {"y_sem": y_sem, "pca_latents": generator.normal(size=(subjects, 4))},
        manifest,
        PARAMS.probe,
    )
    folder = root / "probe"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(results.document().model_dump()))
    results.predictions.to_parquet(folder / "predictions.parquet", index=False)


def write_volume_store(path: Path, scan_ids: list[str], volumes: list[np.ndarray]) -> None:
    shape = volumes[0].shape
    attributes = StoreAttributes(
        kind="volumes",
        made_by="test",
        params={},
        digests={},
        grid={"shape": list(shape), "affine": np.eye(4).tolist(), "orientation": "RAS"},
        scan_ids=scan_ids,
        fingerprints=scan_ids,
    )
    rows = (
        VolumeRow(
            volume=(volume * 255).astype(np.uint8),
            native_to_mni=np.eye(4),
            native_affine=np.eye(4),
            native_shape=np.array(shape, dtype=np.int32),
            intensity_range=np.array([0.0, 1.0]),
        )
        for volume in volumes
    )
    write_volumes(path, attributes, rows)


def write_logs(models: Path) -> None:
    generator = np.random.default_rng(1)
    steps = np.arange(10, 610, 10)
    for name, term in (("ae", "l1"), ("ldm", "loss"), ("ldae", "loss")):
        loss = 0.4 * np.exp(-steps / 120) + 0.06 + 0.01 * generator.normal(size=len(steps))
        log = pd.DataFrame({"step": steps, "seconds": steps * 0.6, "loss": loss})
        log[term] = loss
        log[f"val_{term}"] = np.where(steps % 100 == 0, loss * 1.08, np.nan)
        (models / name).mkdir(parents=True)
        log.to_csv(models / name / "log.csv", index=False)


def write_evaluation(
    folder: Path, manifest: pd.DataFrame, volumes: list[np.ndarray], noise: float
) -> None:
    folder.mkdir()
    generator = np.random.default_rng(2)
    test = manifest[manifest.split == "test"]
    rows = []
    similarities = {"ae": 0.93, "ldae": 0.925, "ldae_y_sem_only": 0.81}
    similarities |= {"ldae_y_sem_mean": 0.84, "mean_brain": 0.82}
    for method, ssim in similarities.items():
        for scan in test.itertuples():
            figures = dict.fromkeys(RECONSTRUCTION_METRICS, 0.002)
            figures |= {"ssim_brain": ssim + 0.01 * generator.normal(), "psnr_brain": 27.0}
            health = {
                "x_T_mean": 0.02 * generator.normal(),
                "x_T_std": 1 + 0.02 * generator.normal(),
                "x_T_kurtosis": 3 + 0.1 * generator.normal(),
            }
            extra = health if method == "ldae" else {}
            rows.append(
                {"scan_id": scan.scan_id, "subject_id": scan.subject_id, "method": method}
                | figures
                | extra
            )
    per_scan = pd.DataFrame(rows)
    (folder / "per_scan").mkdir()
    (folder / "pictures").mkdir()
    per_scan.to_parquet(folder / "per_scan" / "reconstruction.parquet", index=False)
    summary = summarise_reconstruction(per_scan)
    document = {
        "reconstruction": summary,
        "inversion": {"mean": 0.004, "std": 1.02, "kurtosis": 3.05},
        "differences": {
            "ldae_minus_ae": {"ssim_brain": summary["ldae"]["ssim_brain"] | {"value": -0.0123}},
            "y_sem_mean_minus_mean_brain": {
                "ssim_brain": hall(0.02, 0.01, 0.03),
                "mse_brain": hall(-0.001, -0.003, 0.001),
            },
        },
        "identification": {
            "people": 20,
            "chance": 0.05,
            "copy_strength": 0.5,
            "kinds": {
                "copy": {
                    "y_sem": {
                        "rank_1": exact_share(np.arange(20) < 19).model_dump(),
                        "mean_reciprocal_rank": hall(0.97, 0.92, 1.0),
                    }
                }
            },
        },
        "steps": {"5": {"ldae": summary["ae"]}, "20": {"ldae": summary["ldae"]}},
        "manipulation": write_manipulation(folder, test, volumes),
        "interpolation": write_interpolation(folder, test, volumes),
        "forecast": write_forecast(folder, test, volumes),
        "generation": write_generation(folder, volumes),
    }
    (folder / "metrics.json").write_text(json.dumps(document))
    reference = np.stack([volumes[i] for i in test.index[:3]])
    inside = reference > 0

    def noisy(amount: float) -> np.ndarray:
        spread = amount * generator.normal(size=reference.shape)
        return grey((reference + spread).clip(0, 1) * inside)

    np.savez_compressed(
        folder / "pictures" / "reconstruction.npz",
        scan_id=test.scan_id.to_numpy(dtype=str)[:3],
        reference=grey(reference),
        ae=noisy(noise),
        ldae=noisy(1.2 * noise),
        ldae_y_sem_only=noisy(4 * noise),
    )


def hall(value: float, low: float, high: float) -> dict[str, Any]:
    """Return an estimate of twenty subjects, as a file has it."""
    return estimate(value, low, high, 20, "hall").model_dump()


def grey(volumes: np.ndarray) -> np.ndarray:
    return (volumes * 255).astype(np.uint8)


def write_manipulation(
    folder: Path, test: pd.DataFrame, volumes: list[np.ndarray]
) -> dict[str, Any]:
    scales = np.array([-1.0, 0, 1])
    tables = [
        pd.DataFrame(
            {
                "scale": scales,
                "score": gain * scales,
                "pca_score": scales,
                "ventricle_ml": 30 + i + gain * scales,
                "identity": 0.99 - 0.01 * np.abs(scales),
                "unmoved_identity": 0.995,
                "unmoved_change": 1.2 * np.abs(scales),
                "same_subject": True,
                "other_scan": 1.0,
            }
        ).assign(scan_id=scan.scan_id, subject_id=scan.subject_id, method=method)
        for i, scan in enumerate(test.itertuples())
        for method, gain in (("ldae", 2.0), ("pca", 3.0))
    ]
    responses = pd.concat(tables)
    responses.to_parquet(folder / "per_scan" / "manipulation.parquet", index=False)
    made = grey(np.stack([np.stack([volumes[i]] * 3) for i in test.index[:2]]))
    np.savez_compressed(
        folder / "pictures" / "manipulation.npz",
        scan_id=test.scan_id.to_numpy(dtype=str)[:2],
        own=made[:, 1],
        ldae=made,
        pca=made,
    )
    return {
        "direction": "diagnosis:AD",
        "scales": scales.tolist(),
        "subjects": len(test),
        "methods": summarise_dose(responses),
    }


def write_interpolation(
    folder: Path, test: pd.DataFrame, volumes: list[np.ndarray]
) -> dict[str, Any]:
    errors = {"ldae": 1.0, "ldae_detail": 0.7, "latent_blend": 1.1, "blend": 0.5, "nearest": 2.0}
    rows = [
        {
            "scan_id": scan.scan_id,
            "subject_id": scan.subject_id,
            "method": method,
            "target": target,
            "gap_months": 12.0 + 12 * (i % 2),
            "alpha": 0.5,
            "mse_brain": 0.001 * error * (1 + 0.1 * i),
            "ssim_brain": 1 - 0.01 * error,
            "ventricle_error_ml": error,
            "region_error_ml frontal": error * (1 + 0.1 * i),
        }
        for i, scan in enumerate(test.itertuples())
        for target in ("scan", "decoded")
        for method, error in errors.items()
        if (target, method) != ("decoded", "ldae_detail")
    ]
    per_scan = pd.DataFrame(rows)
    per_scan.to_parquet(folder / "per_scan" / "interpolation.parquet", index=False)
    shown = grey(np.stack([volumes[i] for i in test.index[:1]]))
    np.savez_compressed(
        folder / "pictures" / "interpolation.npz",
        scan_id=test.scan_id.to_numpy(dtype=str)[:1],
        gap_months=np.array([12.0]),
        **dict.fromkeys(("before", "scan", "after", *errors), shown),
    )
    summary = summarise_interpolation(per_scan)
    return {"visits": len(test)} | summary


def write_forecast(folder: Path, test: pd.DataFrame, volumes: list[np.ndarray]) -> dict[str, Any]:
    errors = {"ldae": 1.0, "carried_forward": 1.5, "latent_trend": 0.9, "voxel_trend": 1.4}
    rows = [
        {"scan_id": scan.scan_id, "subject_id": scan.subject_id, "target": target, "method": method}
        | {
            "mse_brain": 0.001 * error * (1 + 0.1 * i),
            "ventricle_error_ml": error,
            "region_error_percent": 3 * error,
            "ventricles_covered": float(i % 9 > 0) if method == "ldae" else np.nan,
            "regions_covered": 0.9 if method == "ldae" else np.nan,
            "regions_in_draws": 0.7 if method == "ldae" else np.nan,
        }
        for i, scan in enumerate(test.itertuples())
        for target in ("scan", "decoded")
        for method, error in errors.items()
        if (target, method) != ("decoded", "voxel_trend")
    ]
    shown = grey(np.stack([volumes[i] for i in test.index[:1]]))
    np.savez_compressed(
        folder / "pictures" / "forecast.npz",
        scan_id=test.scan_id.to_numpy(dtype=str)[:1],
        gap_months=np.array([12.0]),
        **dict.fromkeys(("before", "scan", "ldae", "latent_trend", "voxel_trend", "spread"), shown),
    )
    about = {"people": len(test), "draws": 8, "fitted_people": 30, "longest_months_seen": 24.0}
    about |= {"beyond_seen": 1, "gap_months": [6.0, 36.0], "with_two_earlier": 3}
    about |= {"interval": "regions' own course in people seen twice, split-conformal"}
    return about | summarise_forecasts(pd.DataFrame(rows))


def write_generation(folder: Path, volumes: list[np.ndarray]) -> dict[str, Any]:
    brains = grey(np.stack(volumes[:3]))
    names = ("held_out", "denoiser", "prior")
    np.savez_compressed(folder / "pictures" / "generation.npz", **dict.fromkeys(names, brains))
    figures = {
        "ms_ssim_between": 0.8,
        "mmd_latent": 0.01,
        "brains": 3,
        "nearest_training_median": 0.3,
        "nearest_training_min": 0.2,
    }
    return {"brains": 3, "medicalnet": False, "sets": dict.fromkeys(names, figures)}


def render(root: Path, params: Params, **parts: Path) -> str:
    render_report(
        load_context(params=params, manifest=root / "manifest.csv", **parts), root / "report.html"
    )
    return (root / "report.html").read_text(encoding="utf-8")


def all_parts(root: Path) -> dict[str, Path]:
    files = {"qc": "qc.csv", "quarantine": "quarantine.csv", "volumes": "volumes.zarr"}
    return {name: root / files.get(name, name) for name in (*files, "models", "evaluate", "probe")}


class Page(HTMLParser):
    """Collects what a browser would fetch, the ids, the scripts and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "poster", "action") and value:
                self.loads.append(value)
            if name == "style" and value:
                self.loads.extend(re.findall(r"url\(([^)]*)\)", value))
            if name == "id" and value:
                self.ids.append(value)

    def handle_data(self, data: str) -> None:
        self.text.append(data)
