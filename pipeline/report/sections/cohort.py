"""Report sections: headline, cohort, quality control."""

from collections.abc import Iterator
from typing import Any, get_args

import pandas as pd

from pipeline.cohort.bundled_people import is_seen
from pipeline.figures.brain_slices import qc_mosaic
from pipeline.figures.study_plots import (
    SPLIT_ORDER,
    cohort_ages,
)
from pipeline.report.context import ReportContext
from pipeline.report.figure_folder import FigureFolder
from pipeline.report.sections.exclusions import exclusions
from pipeline.report.sections.probes import FEW_SUBJECTS, PROBE_COLUMNS, target_name
from pipeline.report.sections.verdicts import doubt_of
from pipeline.report.sections.wording import number
from pipeline.runtime.progress import counted
from schemas.manifest import CONTRAST_COLUMN
from schemas.params import Contrast
from schemas.results import PROTOCOLS, EvaluateMetrics, ProbeMetrics, Protocol, TargetResult


def headline_section(context: ReportContext) -> list[dict[str, Any]]:
    """Return the cards at the top: what went in, and the figures most looked for."""
    manifest = context.manifest
    people = counted(manifest["subject_id"].nunique(), "subject")
    lost = 0 if context.quarantine is None else len(context.quarantine)
    cards: list[dict[str, Any]] = [
        {
            "label": "Scans",
            "text": f"{len(manifest):,}",
            "note": " · ".join([people, *_contrast(manifest), f"{lost:,} quarantined"]),
        }
    ]
    evaluate, probe = context.evaluate or EvaluateMetrics(), context.probe or ProbeMetrics()
    reconstruction = evaluate.reconstruction
    for method, label in (("ae", "Autoencoder SSIM"), ("ldae", "LDAE SSIM")):
        if "ssim_brain" in reconstruction.get(method, {}):
            estimate = reconstruction[method]["ssim_brain"]
            cards.append({"label": label, "estimate": estimate, "note": "inside the brain"})
    manipulation = evaluate.manipulation or {}
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
    for target, about in probe.targets.items():
        cards.extend(_probe_card(target, probe, about))
    return cards


def _contrast(manifest: pd.DataFrame) -> list[str]:
    """Return the contrast of scans that are no T1w, or nothing."""
    found = manifest[CONTRAST_COLUMN].dropna() if CONTRAST_COLUMN in manifest else ()
    return sorted({str(name) for name in found} & set(get_args(Contrast)))


def _probe_card(target: str, probe: ProbeMetrics, about: TargetResult) -> Iterator[dict[str, Any]]:
    metric = "roc_auc" if about.kind == "classification" else "mae"
    judged = {
        protocol: probe.figures(protocol)[target]
        for protocol in PROTOCOLS
        if metric in probe.figures(protocol).get(target, {}).get("y_sem", {})
    }
    if not judged:
        return
    subjects = {name: sets["y_sem"][metric].subjects for name, sets in judged.items()}
    all_judged = probe.crossfit is not None
    more = all_judged or subjects.get("test", 0) < FEW_SUBJECTS
    protocol: Protocol = max(subjects, key=lambda name: subjects[name]) if more else "test"
    metrics = judged[protocol]
    beside = {"chance": "median guess" if metric == "mae" else "chance", "oracle": "oracle"}
    notes = [
        f"{name} {number(metrics[other][metric].value, PROBE_COLUMNS[metric][1])}"
        for other, name in beside.items()
        if metric in metrics.get(other, {})
    ]
    how = "cross-fitted" if all_judged else "cross-validated"
    # AD and CN, F and M need no more; yes and no do.
    whose = "" if target in ("diagnosis", "sex") else f"{target_name(target)}: "
    label = (
        f"{whose}{about.positive} vs {about.negative}, AUC"
        if metric == "roc_auc"
        else f"{target_name(target)}, MAE{' (years)' if target.endswith('_years') else ''}"
    )
    yield {
        "label": label,
        "estimate": metrics["y_sem"][metric],
        "digits": PROBE_COLUMNS[metric][1],
        "note": " · ".join([*notes, *([how] if protocol == "cv" else [])]),
    }


def cohort_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any]:
    """Return counts by split, and the spread of ages."""
    manifest = context.manifest
    diagnosis = manifest.get("diagnosis", pd.Series(index=manifest.index, dtype=str))
    diagnoses = sorted(diagnosis.dropna().unique())[:8]
    groups = [(split, manifest[manifest["split"] == split]) for split in SPLIT_ORDER]
    bundled = context.params.autoencoder.source == "bundled"
    seen = is_seen(manifest) if bundled else pd.Series(data=False, index=manifest.index)
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
                "seen": int(group.loc[seen[group.index], "subject_id"].nunique()),
            }
        )
    has_ages = "age_years" in manifest and manifest["age_years"].notna().any()
    return {
        "rows": rows,
        "diagnoses": diagnoses,
        "some_unknown": bool(diagnoses) and bool(diagnosis.isna().any()),
        "seen": {str(row["name"]): row["seen"] for row in rows if row["seen"]},
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
        "exclusions": exclusions(context.manifest, quarantine),
        "quarantine_known": quarantine is not None,
        "num_volumes": context.num_volumes,
        "num_tiles": len(context.tiles),
        "picture": figures.brains("qc_mosaic", lambda: qc_mosaic(context.tiles))
        if context.tiles
        else None,
    }
