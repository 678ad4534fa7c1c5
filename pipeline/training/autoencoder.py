"""Train the compression autoencoder on volumes.

Lightning takes longer to import than torch: it is imported where there is something to train.
"""

import inspect
import logging
from pathlib import Path
from typing import Any

import torch

from pipeline.cohort.subjects import many_subjects_first, subjects_of
from pipeline.models.artefact import write_artefact
from pipeline.models.frozen import FrozenAutoencoder
from pipeline.models.frozen import architecture as architecture_of
from pipeline.models.model_folder import check_model_folder, finished_metrics
from pipeline.nets.autoencoder import Autoencoder
from pipeline.nets.resize_latent_channels import add_latent_channels, remove_latent_channels
from pipeline.runtime.digests import digest_file, digest_of
from pipeline.stores.volumes import VolumeStore
from pipeline.training.distributed import processes
from pipeline.training.plan import Plan
from schemas.autoencoder import TrainAeParams
from schemas.errors import ContractError

log = logging.getLogger(__name__)


def train_autoencoder(
    volumes: VolumeStore,
    scan_ids: dict[str, list[str]],
    params: TrainAeParams,
    out: Path,
    *,
    device: torch.device,
    start: FrozenAutoencoder | None = None,
) -> dict[str, Any]:
    """Train, freeze and write the autoencoder; return its metrics.

    `scan_ids` maps split to the scans of that split. `start` gives the weights to start from.

    Raises
    ------
    ContractError
        If there is no training scan, or the grid or `start` does not fit the architecture.
    """
    weights = params.perceptual.weights
    perceptual = digest_file(weights) if weights and weights.is_file() else None
    started_from = [perceptual]
    started_from += [start.digest] if start is not None else []
    # Paths say nothing elsewhere; digests of what lies there do.
    shown = params.model_dump(
        mode="json", exclude={"log_to": True, "start_from": True, "perceptual": {"weights"}}
    )
    plan = Plan(
        digest_of([shown, started_from, volumes.digest, scan_ids]),
        shown,
        {
            "volumes": volumes.digest,
            "split": digest_of(scan_ids),
            "perceptual weights": perceptual,
            "start": start.digest if start is not None else None,
        },
    )
    check_model_folder(out, kind="ae")
    finished = finished_metrics(out, kind="ae", fingerprint=plan.fingerprint)
    if finished is not None:
        return finished
    from pipeline.training.autoencoder_module import AutoencoderModule
    from pipeline.training.lightning_run import discard_checkpoints, run_training
    from pipeline.training.step_module import final_metrics

    train_rows = [volumes.row_of[s] for s in scan_ids["train"] if s in volumes.row_of]
    val_ids = [s for s in scan_ids["val"] if s in volumes.row_of]
    val_rows = [volumes.row_of[val_ids[i]] for i in many_subjects_first(subjects_of(val_ids))]
    if not train_rows:
        raise ContractError(f"{volumes.path}: no scan of the training split; check the manifest")
    architecture: dict[str, Any] = {
        "channels": params.channels,
        "latent_channels": params.latent_channels,
        "num_res_blocks": params.num_res_blocks,
        "norm_groups": params.norm_groups,
        "patch": params.patch,
    }
    torch.manual_seed(params.seed)
    net = Autoencoder(**architecture, checkpointing=params.checkpointing)
    if start is not None:
        _take_weights(net, architecture, start)
    grid = volumes.attributes.grid
    _check_boxes(net, params, grid.shape)
    if weights is None and params.perceptual.weight:
        log.info("perceptual term: off, no train_ae.perceptual.weights was given")
    module = AutoencoderModule(net, params, volumes, train_rows, val_rows)
    run_training(module, out, plan=plan, device=device)
    metrics = final_metrics(module)
    config = {
        **plan.record(),
        "architecture": architecture,
        "grid": grid.document(),
        "contrast": volumes.attributes.contrast,
        "params": shown,
        "perceptual_sha256": perceptual,
        "started_from": start.digest if start is not None else None,
        "train_scans": len(train_rows),
        "volumes_digest": volumes.digest,
        "metrics": {k: v for k, v in metrics.items() if k != "seconds"},
    }
    if processes().rank == 0:
        write_artefact(
            out,
            kind="ae",
            tensors=module.averaged.state_dict(),
            config=config,
            metrics=metrics,
            card=_card(config),
        )
        discard_checkpoints(out)
    return metrics


def _take_weights(net: Autoencoder, architecture: dict[str, Any], start: FrozenAutoencoder) -> None:
    """Copy the weights of `start`, for as many latent channels as `net` has."""
    given, theirs = start.net.state_dict(), architecture_of(start.config)
    # Not by shapes of tensors: groups of normalisation show in none.
    defaults = {k: p.default for k, p in inspect.signature(Autoencoder).parameters.items()}
    free = {"latent_channels": None, "checkpointing": None}
    same = defaults | theirs | free == defaults | architecture | free
    if not same:
        sizes = {key: theirs.get(key) for key in theirs | architecture}
        raise ContractError(
            f"train_ae.start_from: {start.path} has {sizes}; give the same but for latent_channels"
        )
    if net.latent_channels < theirs["latent_channels"]:
        given = remove_latent_channels(given, net.latent_channels)
    net.load_state_dict(add_latent_channels(given, net.state_dict()))


def _check_boxes(net: Autoencoder, params: TrainAeParams, shape: tuple[int, ...]) -> None:
    try:
        net.latent_shape(shape)
    except ValueError as error:
        raise ContractError(f"train_ae.channels do not fit the volumes: {error}") from error
    if params.crop is None:
        return
    if any(c > n or c % net.factor for c, n in zip(params.crop, shape, strict=True)):
        raise ContractError(
            f"train_ae.crop {params.crop}: expected multiples of {net.factor} within {shape}"
        )


def _card(config: dict[str, Any]) -> str:
    figures = "\n".join(f"- {k}: {v}" for k, v in config["metrics"].items())
    params = config["params"]
    terms = ["L1"] + (["SSIM"] if params["ssim_weight"] else []) + ["KL"]
    terms += ["LPIPS"] if config["perceptual_sha256"] else []
    terms += ["patch-adversarial"] if params["adversarial"]["weight"] else []
    return f"""# Compression autoencoder

MONAI AutoencoderKL, trained with {" + ".join(terms)} on {config["train_scans"]} preprocessed T1w
volumes on a grid of {config["grid"]["shape"]}, {params["steps"]} steps at most. Frozen: latents
made with it belong to these weights alone. Parameters of the run: config.json, params.

Last figures (step, losses on training scans, val_l1 on validation scans):

{figures}

Licence: that of the data it was trained on; the code is Apache-2.0. Not a medical device.
"""
