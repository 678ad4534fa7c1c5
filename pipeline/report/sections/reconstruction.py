"""Report sections: reconstruction and inversion."""

from functools import partial
from statistics import median
from typing import Any

import pandas as pd

from pipeline.figures.brain_slices import PLANES, reconstruction_strip, slice_sprite
from pipeline.figures.evaluation_plots import steps_plot
from pipeline.figures.study_plots import health_plot
from pipeline.figures.style import data_uri
from pipeline.metrics.gaussianity import near_gaussian
from pipeline.report.context import ReportContext
from pipeline.report.figure_folder import FigureFolder, Picture
from pipeline.report.sections.verdicts import told
from schemas.results import EvaluateMetrics

METHOD_NAMES = {
    "ae": "Autoencoder alone",
    "ldae": "LDAE, inverted x_T",
    "lddim": "Denoiser alone, inverted x_T",
    "ldae_y_sem_only": "LDAE, y_sem only (random x_T)",
    "ldae_other_y_sem": "Control: other subjects’ y_sem",
    "ldae_y_sem_mean": "LDAE, y_sem only, mean over draws of x_T",
    "ldae_other_y_sem_mean": "Control: another subject’s y_sem, mean over the same draws",
    "modes_alone": "y_sem’s modes alone, mean over draws (LDAE before training)",
    "mode_projection": "y_sem’s modes, decoded without sampling",
    "mean_brain": "Mean brain: the decoded mean latent",
    "pca_projection": "PCA of latents, as many numbers as y_sem",
    "pca_other": "Control: another subject’s components",
    "voxel_dae": "Voxel-space diffusion autoencoder",
    "voxel_dae_y_sem_only": "Voxel-space, y_sem only",
}
DIFFERENCE_NAMES = {
    "ldae_minus_ae": "LDAE minus autoencoder",
    "ldae_minus_voxel_dae": "LDAE minus voxel-space diffusion autoencoder",
    "own_minus_other_y_sem": "own y_sem minus other subjects’, same random x_T",
    "y_sem_mean_minus_mean_brain": "y_sem (mean over draws) minus mean brain",
    "y_sem_mean_minus_pca": "y_sem (mean over draws) minus PCA",
    "y_sem_mean_minus_modes_alone": "y_sem (mean over draws) minus its modes alone",
    "own_minus_other_y_sem_mean": "own y_sem minus another subject’s, means over the same draws",
    "own_minus_other_pca": "own components minus another subject’s",
}
SHORT_METHOD_NAMES = {
    "reference": "scan",
    "ae": "AE",
    "ldae": "LDAE",
    "ldae_y_sem_only": "y_sem only",
    "ldae_y_sem_mean": "y_sem, mean",
    "mean_brain": "mean brain",
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


def method_name(method: str) -> str:
    """Return how a reconstruction is called in the table."""
    return METHOD_NAMES.get(method, method.replace("_", " "))


def reconstruction_section(context: ReportContext, figures: FigureFolder) -> dict[str, Any] | None:
    """Return the table with intervals, strips with difference maps, and the slice viewer."""
    evaluate = context.evaluate
    if evaluate is None or not evaluate.reconstruction:
        return None
    summary = evaluate.reconstruction
    columns = {
        metric: heading
        for metric, heading in RECONSTRUCTION_COLUMNS.items()
        if any(metric in metrics for metrics in summary.values())
    }
    subjects = [e.subjects for metrics in summary.values() for e in metrics.values()]
    return {
        "columns": columns,
        "rows": [(method_name(method), metrics) for method, metrics in summary.items()],
        "subjects": max(subjects, default=0),
        "differences": [
            (DIFFERENCE_NAMES.get(name, name.replace("_", " ")), estimates, told(estimates))
            for name, estimates in (evaluate.differences or {}).items()
        ],
        "steps": _steps_picture(context, figures),
        "throughput": _throughput(evaluate),
        **_examples(context, figures),
    }


def _throughput(evaluate: EvaluateMetrics) -> dict[str, Any] | None:
    measured = evaluate.throughput
    if measured is None:
        return None
    seconds = {name: median(rounds) for name, rounds in measured.seconds.items()}
    return {
        "steps": evaluate.num_inference_steps,
        "faster": measured.faster["ldae"],
        **seconds,
    }


def _steps_picture(context: ReportContext, figures: FigureFolder) -> Picture | None:
    steps = context.evaluate and context.evaluate.steps
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
    health = context.evaluate and context.evaluate.inversion
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
