"""Report section: the autoencoder alone, from `pipeline evaluate --what ae`."""

from typing import Any

from pipeline.figures.style import data_uri
from pipeline.report.context import ReportContext

COLUMNS = {
    "ssim": ("SSIM", 3),
    "ms_ssim": ("MS-SSIM", 3),
    "psnr": ("PSNR (dB)", 1),
    "mse": ("MSE", 5),
}


def ae_section(context: ReportContext) -> dict[str, Any] | None:
    """Return figures inside the brain and over the whole volume, drift, latents, error map."""
    quality = context.ae_quality
    if not quality:
        return None
    figures, drift = quality["reconstruction"], quality["drift"]
    picture = context.ae_error_map
    return {
        "columns": [heading for heading, _ in COLUMNS.values()],
        "rows": [
            (words, [(figures[f"{name}_{where}"], digits) for name, (_, digits) in COLUMNS.items()])
            for where, words in (("brain", "inside the brain"), ("whole", "whole volume"))
        ],
        "lpips": figures.get("lpips"),
        "ventricles": quality["ventricles"].get("median_absolute_relative_error"),
        "drift": [e["value"] for name, e in drift.items() if name.startswith("drift_ssim")],
        "latent": quality["latent"],
        "split": quality["split"],
        "picture": {"uri": data_uri(picture, "png"), "dark_uri": None} if picture else None,
    }
