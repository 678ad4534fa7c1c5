"""Import an AutoencoderKL checkpoint as a model folder, and reconstruct the template with it."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.imaging.atlas.mni152 import load_template, mni_grid
from pipeline.metrics.reconstruction import reconstruction_metrics
from pipeline.models.artefact import load_strict, write_artefact
from pipeline.models.conversion.architecture import architecture_of
from pipeline.models.conversion.checkpoint import Checkpoint, read_checkpoint
from pipeline.models.conversion.key_names import Projection, is_maisi, is_old, rename, unwrapped
from pipeline.models.model_folder import check_model_folder
from pipeline.nets.autoencoder import Autoencoder
from pipeline.runtime.digests import digest_file, digest_of
from pipeline.runtime.progress import few
from schemas.errors import ContractError
from schemas.grid import Grid, GridParams

log = logging.getLogger(__name__)

NET_PREFIX = "net."
FIELD_MM = (192.0, 240.0, 192.0)
"""Field of view of the published grid, 128×160×128 at 1.5 mm."""
POOR_SSIM = 0.8
MAISI_INTENSITY = {"intensity": "percentiles", "intensity_percentiles": [0.0, 99.5]}
"""Intensity scale of MAISI; its percentiles are taken inside the brain here."""


@dataclass(frozen=True, slots=True)
class ImportedAutoencoder:
    """Result of an import."""

    digest: str
    architecture: dict[str, Any]
    proof: dict[str, float]
    """Reconstruction of the template: metrics.RECONSTRUCTION_METRICS."""
    remarks: list[str]


def import_autoencoder(
    path: Path,
    out: Path,
    *,
    device: torch.device,
    config: Path | None = None,
    prefix: str | None = None,
    projection: Projection = "auto",
    norm_groups: int | None = None,
    zooms: float | None = None,
    shape: tuple[int, int, int] | None = None,
    assumed_grid: Grid | None = None,
    boxes: tuple[int, int, int] | None = None,
    intensity: dict[str, Any] | None = None,
) -> ImportedAutoencoder:
    """Write a checkpoint of AutoencoderKL as a model folder, every tensor accounted for.

    `zooms` (mm) and `shape` (voxels) are the grid that it was trained on; by default those of its
    config, else `assumed_grid`, else 1.5 mm and a field of view of 192×240×192 mm. `boxes` (voxels)
    are the shape in which volumes are encoded piece by piece; None encodes them whole. `intensity`
    are the preprocessing parameters of the intensity scale of its training, if known.

    Raises
    ------
    ContractError
        If the file holds code, or a tensor is missing, left over or of another shape.
    """
    check_model_folder(out, kind="ae")
    checkpoint = read_checkpoint(path, config=config, prefix=prefix)
    tensors, remark = _present_names(checkpoint, projection)
    remarks = [remark] if remark else []
    try:
        maisi = is_maisi(tensors)
        architecture, assumed = architecture_of(
            unwrapped(tensors) if maisi else tensors,
            checkpoint.definition,
            norm_groups=norm_groups,
        )
        if maisi:
            architecture["maisi"] = True
        net = Autoencoder(**architecture)
    except (ContractError, ValueError, TypeError, KeyError) as error:
        raise ContractError(f"{path}: {str(error).strip(chr(34))}") from error
    remarks += [f"assumed: {words}" for words in assumed]
    load_strict(net, {NET_PREFIX + k: v for k, v in tensors.items()}, source=path)
    net.requires_grad_(False).eval().to(device)
    grid = _grid(net, checkpoint.grid or assumed_grid, zooms, shape)
    proof = prove(net, grid, device=device)
    if boxes is not None:
        net.boxes = _boxes(net, boxes)
        remark, errors = _in_boxes(net, grid, device=device)
        remarks.append(remark)
        proof |= errors
    intensity = intensity or (MAISI_INTENSITY if maisi else None)
    if proof["ssim_brain"] < POOR_SSIM:
        remarks.append(
            f"SSIM {proof['ssim_brain']:.3f} on the template is poor: another voxel size, intensity"
            " scale or number of norm groups than it was trained with, or it was never trained"
        )
    source = {"file": checkpoint.path.name, "sha256": digest_file(checkpoint.path)}
    digest = write_artefact(
        out,
        kind="ae",
        tensors=net.state_dict(),
        config={
            "fingerprint": digest_of(["imported", source, architecture, grid.document()]),
            "architecture": architecture,
            "grid": grid.document(),
            "portable": True,
            **({"boxes": list(boxes)} if boxes else {}),
            **({"intensity": intensity} if intensity else {}),
            "imported": source | {"layout": _layout(checkpoint.tensors)},
            "metrics": proof,
        },
        metrics=proof | {"parameters": sum(p.numel() for p in net.parameters())},
        card=_card(source, architecture, grid, proof, remarks),
    )
    return ImportedAutoencoder(digest, architecture, proof, remarks)


def _present_names(checkpoint: Checkpoint, projection: Projection) -> tuple[dict[str, Tensor], str]:
    tensors, remark = rename(checkpoint.tensors, projection)
    if is_old(checkpoint.tensors) and checkpoint.definition.get("use_convtranspose"):
        raise ContractError(
            f"{checkpoint.path}: old transposed upsampling has no counterpart in MONAI ≥ 1.4"
        )
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ContractError(f"{checkpoint.path}: {few(broken)}: not finite")
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, remark


def _grid(
    net: Autoencoder,
    known: Grid | None,
    zooms: float | None,
    shape: tuple[int, int, int] | None,
) -> Grid:
    if known is not None and zooms is None and shape is None:
        return known
    zooms = zooms or 1.5
    if shape is None:
        sides = [max(1, round(mm / zooms / net.factor)) * net.factor for mm in FIELD_MM]
        shape = (sides[0], sides[1], sides[2])
    try:
        net.latent_shape(shape)
    except ValueError as error:
        raise ContractError(f"--shape: {error}") from error
    return mni_grid(GridParams(shape=shape, zooms=zooms))


@torch.inference_mode()
def prove(net: Autoencoder, grid: Grid, *, device: torch.device) -> dict[str, float]:
    """Return the reconstruction metrics of the MNI template on a grid."""
    reference, brain = _template(grid)
    mean, _ = net.encode(reference.to(device))
    decoded = net.decode(mean).float().cpu()
    metrics = reconstruction_metrics(reference, decoded, brain)
    return {str(name): float(value) for name, value in metrics.iloc[0].items()}


def _layout(tensors: dict[str, Tensor]) -> str:
    if is_maisi(tensors):
        return "maisi"
    return "old" if is_old(tensors) else "present"


def _boxes(net: Autoencoder, boxes: tuple[int, int, int]) -> tuple[int, ...]:
    try:
        net.latent_shape(boxes)
    except ValueError as error:
        raise ContractError(f"--boxes: {error}") from error
    return boxes


@torch.inference_mode()
def _in_boxes(
    net: Autoencoder, grid: Grid, *, device: torch.device
) -> tuple[str, dict[str, float]]:
    """Return the errors of encoding in boxes instead of whole, in words and as numbers."""
    volume = _template(grid)[0].to(device)
    boxes, net.boxes = net.boxes, None
    whole, _ = net.encode(volume)
    whole_volume = net.decode(whole)
    net.boxes = boxes
    mean, _ = net.encode(volume)
    errors = {
        "boxes_latent_error": float((mean - whole).norm() / whole.norm()),
        "boxes_volume_rmse": float((net.decode(mean) - whole_volume).square().mean().sqrt()),
    }
    words = (
        f"in boxes of {'×'.join(map(str, boxes or ()))} voxels: latents of the template differ from"
        f" the whole's by {errors['boxes_latent_error']:.2%} (root mean square, relative), volumes"
        f" by {errors['boxes_volume_rmse']:.4f}"
    )
    return words, errors


def _template(grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the MNI template's brain on a grid and its mask, each (1, 1, X, Y, Z)."""
    volume, brain = load_template(grid.as_params())
    return torch.from_numpy(volume * brain)[None, None], torch.from_numpy(brain.copy())[None, None]


def _card(
    source: dict[str, str],
    architecture: dict[str, Any],
    grid: Grid,
    proof: dict[str, float],
    remarks: list[str],
) -> str:
    lines = "\n".join(f"- {key}: {value}" for key, value in architecture.items())
    return f"""# Imported autoencoder

From {source["file"]} (sha256 {source["sha256"]}); every tensor loaded, none left over.

{lines}

Grid: {list(grid.shape)} voxels of {grid.zooms[0]:g} mm. The MNI152 template on it
comes back with SSIM {proof["ssim_brain"]:.4f} and MSE {proof["mse_brain"]:.6f} inside the brain,
SSIM {proof["ssim_whole"]:.4f} and MSE {proof["mse_whole"]:.6f} over the whole volume.

{chr(10).join(f"- {words}" for words in remarks)}

Licence: that of the checkpoint and of the data it was trained on. Not a medical device.
"""
