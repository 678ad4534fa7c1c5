"""What each section of the report says, as plain values for the template."""

from collections.abc import Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from pipeline.compute import counted
from pipeline.diffusion.health import near_gaussian
from pipeline.evaluation.brains import PLANES, qc_mosaic, reconstruction_strip, slice_sprite
from pipeline.evaluation.context import ReportContext
from pipeline.evaluation.figures import (
    MODEL_NAMES,
    SPLIT_ORDER,
    cohort_ages,
    curve_term,
    health_plot,
    training_curves,
)
from pipeline.evaluation.gallery import FigureFolder, Picture
from pipeline.evaluation.plots import steps_plot
from pipeline.evaluation.probe_sections import (
    FEW_SUBJECTS,
    PROBE_COLUMNS,
    doubt_of,
    target_name,
)
from pipeline.evaluation.style import data_uri

METHOD_NAMES = {
    "ae": "Autoencoder alone",
    "ldae": "LDAE, inverted x_T",
    "lddim": "Denoiser alone, inverted x_T",
    "ldae_y_sem_only": "LDAE, y_sem only (random x_T)",
    "ldae_other_y_sem": "Control: other subjects’ y_sem",
    "voxel_dae": "Voxel-space diffusion autoencoder",
    "voxel_dae_y_sem_only": "Voxel-space, y_sem only",
}
DIFFERENCE_NAMES = {
    "ldae_minus_ae": "LDAE minus autoencoder",
    "ldae_minus_voxel_dae": "LDAE minus voxel-space diffusion autoencoder",
    "own_minus_other_y_sem": "own y_sem minus other subjects’, same random x_T",
}
SHORT_METHOD_NAMES = {
    "reference": "scan",
    "ae": "AE",
    "ldae": "LDAE",
    "ldae_y_sem_only": "y_sem only",
    "voxel_dae": "voxel DAE",
}
RECONSTRUCTION_COLUMNS = {
    "ssim_brain": ("SSIM, brain", 3),
    "ssim_whole": ("SSIM, whole", 3),
    "psnr_brain": ("PSNR, brain (dB)", 1),
    "mse_brain": ("MSE, brain", 4),
    "mae_brain": ("MAE, brain", 4),
    "lpips": ("LPIPS", 3),
}
"""Metric to its heading and decimals."""
Metrics = Mapping[str, Mapping[str, Any]]


def method_name(method: str) -> str:
    """Return how a reconstruction is called in the table."""
    return METHOD_NAMES.get(method, method.replace("_", " "))


def number(value: float, digits: int = 3, sign: str = "") -> str:
    """Return a number with its decimals and a true minus; zero has no sign."""
    text = f"{value:{sign}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def headline_section(context: ReportContext) -> list[dict[str, Any]]:
    """Return the cards at the top: what went in, and the figures most looked for."""
    manifest = context.manifest
    people = counted(manifest["subject_id"].nunique(), "subject")
    lost = 0 if context.quarantine is None else len(context.quarantine)
    cards: list[dict[str, Any]] = [
        {
            "label": "Scans",
            "text": f"{len(manifest):,}",
            "note": f"{people} · {lost:,} quarantined",
        }
    ]
    reconstruction: Mapping[str, Metrics] = (context.evaluate or {}).get("reconstruction", {})
    for method, label in (("ae", "Autoencoder SSIM"), ("ldae", "LDAE SSIM")):
        if "ssim_brain" in reconstruction.get(method, {}):
            estimate = reconstruction[method]["ssim_brain"]
            cards.append({"label": label, "estimate": estimate, "note": "inside the brain"})
    manipulation = (context.evaluate or {}).get("manipulation", {})
    dose = manipulation.get("methods", {}).get("ldae", {})
    if "ventricle_ml" in dose:
        doubted = doubt_of(manipulation["direction"], context.probe) is not None
        cards.append(
            {
                "label": f"Ventricles along {manipulation['direction'].split(':')[-1]}, ρ",
                "estimate": dose["ventricle_ml"]["spearman"],
                "digits": 2,
                "note": "median rank correlation · "
                f"{number(dose['ventricle_ml']['per_scale']['value'], 2, '+')} ml a step"
                f"{' · its probe is not shown to beat chance' if doubted else ''}",
            }
        )
    probe = context.probe or {}
    for target, about in probe.get("targets", {}).items():
        cards.extend(_probe_card(target, probe, about))
    return cards


def _probe_card(
    target: str, probe: Mapping[str, Any], about: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    metric = "roc_auc" if about["kind"] == "classification" else "mae"
    judged = {
        protocol: probe[protocol][target]
        for protocol in ("test", "cv")
        if metric in probe.get(protocol, {}).get(target, {}).get("y_sem", {})
    }
    if not judged:
        return
    subjects = {name: sets["y_sem"][metric]["subjects"] for name, sets in judged.items()}
    few = subjects.get("test", 0) < FEW_SUBJECTS
    protocol = max(subjects, key=lambda name: subjects[name]) if few else "test"
    metrics = judged[protocol]
    beside = {"chance": "median guess" if metric == "mae" else "chance", "oracle": "oracle"}
    notes = [
        f"{name} {number(metrics[other][metric]['value'], PROBE_COLUMNS[metric][1])}"
        for other, name in beside.items()
        if metric in metrics.get(other, {})
    ]
    label = (
        f"{about['positive']} vs {about['negative']}, AUC"
        if metric == "roc_auc"
        else f"{target_name(target)}, MAE{' (years)' if target.endswith('_years') else ''}"
    )
    yield {
        "label": label,
        "estimate": metrics["y_sem"][metric],
        "digits": PROBE_COLUMNS[metric][1],
        "note": " · ".join([*notes, *(["cross-validated"] if protocol == "cv" else [])]),
    }


def cohort_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any]:
    """Return counts by split, and the spread of ages."""
    manifest = context.manifest
    diagnosis = manifest.get("diagnosis", pd.Series(index=manifest.index, dtype=str))
    diagnoses = sorted(diagnosis.dropna().unique())[:8]
    groups = [(split, manifest[manifest["split"] == split]) for split in SPLIT_ORDER]
    rows = []
    for name, group in [*groups, ("all", manifest)]:
        ages = pd.to_numeric(group.get("age_years", pd.Series(dtype=float)), errors="coerce")
        ages = ages.dropna()
        sexes = group.get("sex", pd.Series(dtype=str)).value_counts()
        others = int(sexes.drop(["F", "M"], errors="ignore").sum())
        rows.append(
            {
                "name": name,
                "scans": len(group),
                "subjects": group["subject_id"].nunique(),
                "age": f"{ages.mean():.1f} ± {ages.std(ddof=0):.1f}" if len(ages) else "–",
                "range": f"{ages.min():.0f}–{ages.max():.0f}" if len(ages) else "–",
                "sex": f"{sexes.get('F', 0)} / {sexes.get('M', 0)}"
                + (f" / {others} other" if others else ""),
                "diagnoses": [int((diagnosis[group.index] == d).sum()) for d in diagnoses],
                "unknown": int(diagnosis[group.index].isna().sum()),
            }
        )
    has_ages = "age_years" in manifest and manifest["age_years"].notna().any()
    return {
        "rows": rows,
        "diagnoses": diagnoses,
        "some_unknown": bool(diagnoses) and bool(diagnosis.isna().any()),
        "visits": int((manifest.groupby("subject_id").size() > 1).sum()),
        "picture": figures.plot("cohort_ages", lambda palette: cohort_ages(manifest, palette))
        if has_ages
        else None,
    }


def quality_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any]:
    """Return the mosaic, the scans with a warning, and the quarantine."""
    counts: dict[str, int] = {}
    warned: list[dict[str, str]] = []
    if context.qc is not None and "status" in context.qc:
        counts = {str(k): int(v) for k, v in context.qc["status"].value_counts().items()}
        rows = context.qc[context.qc["status"] != "pass"].fillna("")
        warned = [
            {
                "scan_id": str(row["scan_id"]),
                "status": str(row["status"]),
                "reasons": str(row.get("reasons", "")),
            }
            for row in rows.to_dict("records")
        ]
    quarantine = context.quarantine
    return {
        "run": context.qc is not None or context.num_volumes is not None,
        "counts": counts,
        "warned": warned,
        "quarantine": [] if quarantine is None else quarantine.fillna("").to_dict("records"),
        "quarantine_known": quarantine is not None,
        "num_volumes": context.num_volumes,
        "num_tiles": len(context.tiles),
        "picture": figures.brains("qc_mosaic", lambda: qc_mosaic(context.tiles))
        if context.tiles
        else None,
    }


def training_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return curves and last figures of each trained model, or None."""
    logs = {name: log for name, log in context.logs.items() if "step" in log}
    if not logs:
        return None
    # An autoencoder that came trained brings its own log.
    source = {"bundled": "bundled", "path": "of another study"}.get(
        context.params.autoencoder.source
    )
    names = MODEL_NAMES | ({"ae": f"{MODEL_NAMES['ae']} ({source})"} if source else {})
    rows = []
    for name, log in logs.items():
        term = curve_term(log)
        train = log[term].dropna() if term in log else pd.Series(dtype=float)
        held_out = log.get(f"val_{term}", pd.Series(dtype=float)).dropna()
        seconds = log["seconds"].dropna().max() if "seconds" in log else np.nan
        rows.append(
            {
                "name": names.get(name, name),
                "steps": int(log["step"].max()),
                "minutes": f"{seconds / 60:.1f}" if np.isfinite(seconds) else "–",
                "term": {"loss": "loss", "l1": "L1"}.get(term, term),
                "train": f"{train.iloc[-1]:.4g}" if len(train) else "–",
                "val": f"{held_out.iloc[-1]:.4g}" if len(held_out) else "–",
                "lowest": _lowest(log["step"], held_out),
            }
        )
    missing = [MODEL_NAMES[name] for name in MODEL_NAMES if name not in logs]
    picture = figures.plot(
        "training_curves",
        lambda palette: training_curves({names[name]: log for name, log in logs.items()}, palette),
    )
    elsewhere = names["ae"] if source and "ae" in logs else None
    return {"rows": rows, "missing": missing, "picture": picture, "elsewhere": elsewhere}


def _lowest(steps: "pd.Series[Any]", values: "pd.Series[Any]") -> str:
    if values.empty:
        return "–"
    at = steps.loc[values.index].iloc[int(values.argmin())]
    return f"{values.min():.4g} at {at:.0f}"


def reconstruction_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return the table with intervals, strips with difference maps, and the slice viewer."""
    summary: Mapping[str, Metrics] = (context.evaluate or {}).get("reconstruction", {})
    if not summary:
        return None
    columns = {
        metric: heading
        for metric, heading in RECONSTRUCTION_COLUMNS.items()
        if any(metric in metrics for metrics in summary.values())
    }
    subjects = [e["subjects"] for metrics in summary.values() for e in metrics.values()]
    return {
        "columns": columns,
        "rows": [(method_name(method), metrics) for method, metrics in summary.items()],
        "subjects": max(subjects, default=0),
        "differences": [
            (DIFFERENCE_NAMES.get(name, name.replace("_", " ")), estimates)
            for name, estimates in (context.evaluate or {}).get("differences", {}).items()
        ],
        "steps": _steps_picture(context, figures),
        "throughput": _throughput(context.evaluate or {}),
        **_examples(context, figures),
    }


def _throughput(evaluate: Mapping[str, Any]) -> dict[str, Any] | None:
    if "throughput" not in evaluate:
        return None
    measured = evaluate["throughput"]
    seconds = {name: median(rounds) for name, rounds in measured["seconds"].items()}
    return {
        "steps": evaluate["num_inference_steps"],
        "faster": measured["faster"]["ldae"],
        **seconds,
    }


def _steps_picture(context: ReportContext, figures: FigureFolder) -> Picture | None:
    steps = (context.evaluate or {}).get("steps", {})
    if not steps:
        return None
    return figures.plot("steps", lambda palette: steps_plot(steps, METHOD_NAMES, palette))


def _examples(context: ReportContext, figures: FigureFolder) -> dict[str, Any]:
    examples = context.pictures.get("reconstruction", {})
    if not len(examples.get("scan_id", ())):
        return {"strips": [], "viewer": None}
    methods = [name for name in examples if name not in ("scan_id", "reference")]
    strips = []
    for i in range(min(len(examples["scan_id"]), context.params.report.max_examples)):
        predictions = {method: examples[method][i] for method in methods}
        reference = examples["reference"][i]
        draw = partial(reconstruction_strip, reference, predictions, SHORT_METHOD_NAMES)
        picture = figures.brains(f"reconstruction_{i + 1}", draw)
        strips.append({"scan_id": str(examples["scan_id"][i]), "picture": picture})
    panels = ["reference", *methods]
    sprites = []
    for plane in PLANES:
        sprite = slice_sprite(
            [examples[panel][0] for panel in panels],
            plane,
            frames=context.params.report.viewer_slices,
            panel_pixels=context.params.report.viewer_pixels,
            quality=context.params.report.picture_quality,
        )
        uri = data_uri(sprite.webp, "webp")
        sprites.append(
            {"plane": plane, "uri": uri, "frames": sprite.frames, "aspect": sprite.aspect}
        )
    viewer = {
        "scan_id": str(examples["scan_id"][0]),
        "panels": [SHORT_METHOD_NAMES.get(panel, panel) for panel in panels],
        "sprites": sprites,
    }
    return {"strips": strips, "viewer": viewer}


def inversion_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return mean, std and kurtosis of inverted noise beside those of a Gaussian, or None."""
    health = (context.evaluate or {}).get("inversion")
    if not health:
        return None
    columns = {f"x_T_{name}": name for name in ("mean", "std", "kurtosis")}
    table = pd.DataFrame([{name: health[name] for name in columns.values()}])
    per_scan = context.per_scan.get("reconstruction")
    if per_scan is not None and set(columns) <= set(per_scan):
        scans = per_scan[list(columns)].rename(columns=columns).dropna()
        table = scans if len(scans) else table
    return {
        "health": health,
        "sound": near_gaussian(health),
        "picture": figures.plot("inversion", lambda palette: health_plot(table, palette)),
    }


def parameter_section(context: ReportContext) -> list[dict[str, Any]]:
    """Return every parameter with its value and meaning, a group a section."""
    source = context.params.autoencoder.source
    without_effect = {
        "train_ae": "" if source == "train" else f"without effect: autoencoder.source is {source}",
        "train_ldm": "" if "ldm" in context.logs else "not run",
        "train_ldae": "" if "ldae" in context.logs else "not run",
        "probe": "not run" if context.probe is None else "",
        "evaluate": "not run" if context.evaluate is None else "",
    }
    return [
        {
            "name": name,
            "rows": list(_parameter_rows(getattr(context.params, name))),
            "remark": without_effect.get(name, ""),
        }
        for name in type(context.params).model_fields
    ]


def _parameter_rows(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _parameter_rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _shown(value), field.description or _inherited(section, name)


def _inherited(section: BaseModel, name: str) -> str:
    """Return the meaning that a parent section gives a field whose default is overridden."""
    parents = [c for c in type(section).__mro__ if issubclass(c, BaseModel)]
    fields = (parent.model_fields.get(name) for parent in parents)
    return next((f.description for f in fields if f is not None and f.description), "")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) or "–"
    if isinstance(value, tuple | list):
        # Whole numbers are the sides of a box, others the ends of a range or weights.
        sides = len(value) > 1 and all(isinstance(v, int) for v in value)
        return (" × " if sides else ", ").join(map(str, value)) or "–"
    return "–" if value is None else str(value)
