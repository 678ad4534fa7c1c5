"""The weights that a training starts from, and whether it can."""

import json
import logging
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from pipeline.models.bundled_ldae import is_bundled_for, load_start, load_start_of_stage_1
from pipeline.models.frozen import FrozenDiffusion, FrozenLdae
from pipeline.models.latent_fit import StoredLatents, check_latents_fit, own_latent_shape
from pipeline.models.ldae import encoder_config
from schemas.changes import flattened
from schemas.diffusion import (
    DiffusionParams,
    LdaeParams,
    LdmParams,
    TrainLdaeParams,
    TrainLdmParams,
)
from schemas.errors import ContractError

log = logging.getLogger(__name__)

NOT_OF_WEIGHTS = {"dropout"}
"""What training may change of the sizes of a network."""

Named = Literal["auto", "bundled"] | Path | None
"""`start_from` of a stage."""
Stage = TypeVar("Stage", TrainLdmParams, TrainLdaeParams)


def start_of_stage_1(
    named: Named, params: LdmParams, store: StoredLatents
) -> FrozenDiffusion | None:
    """Return what stage 1 starts from on these latents; None is from nothing.

    `auto` is the bundled LDAE where it fits latents and sizes.
    """
    if named == "auto" and not is_bundled_for(store.attributes):
        named = None
    if named is None:
        return None
    if named != "auto":
        return load_start_of_stage_1(named)
    start = load_start_of_stage_1("bundled")
    try:
        check_stage_1_start(start, params, store)
    except ContractError as reason:
        log.info("stage 1 starts from nothing: %s", reason)
        return None
    log.info("stage 1 starts from the bundled LDAE")
    return start


def start_of_stage_2(
    named: Named, params: LdaeParams, store: StoredLatents, *, stage_1: FrozenDiffusion
) -> FrozenLdae | None:
    """Return what stage 2 starts from on this stage 1; None is from nothing.

    `auto` is the bundled LDAE where it fits latents, sizes and the statistics of stage 1.
    """
    if named == "auto" and not is_bundled_for(store.attributes):
        named = None
    if named is None:
        return None
    if named != "auto":
        return load_start(named)
    start = load_start("bundled")
    try:
        check_start(start, params, store, stage_1=stage_1, volume_shape=None)
    except ContractError as reason:
        log.info("stage 2 starts from nothing: %s", reason)
        return None
    log.info("stage 2 starts from the bundled LDAE")
    return start


def with_its_steps(params: Stage, start: object | None) -> Stage:
    """Return the parameters with as many steps as a training from this start takes."""
    if start is None or params.fine_tune_steps is None:
        return params
    log.info("%d steps from there (fine_tune_steps)", params.fine_tune_steps)
    return params.model_copy(update={"steps": params.fine_tune_steps})


def check_stage_1_start(start: FrozenDiffusion, params: LdmParams, store: StoredLatents) -> None:
    """Refuse a stage 1 of other sizes than `params` ask for, or that does not work on the latents.

    Raises
    ------
    ContractError
        With the parameters to set, and their values.
    """
    _check_latents(start, store, "train_ldm")
    asked = params.denoiser.model_dump()
    schedule = DiffusionParams.model_validate(start.config["diffusion"])
    _check_sizes(
        "train_ldm",
        start,
        {
            "denoiser": {key: start.config["unet"][key] for key in asked},
            "diffusion": schedule.model_dump(),
            "prediction": start.config["prediction"],
        },
        {
            "denoiser": asked,
            "diffusion": params.diffusion.model_dump(),
            "prediction": params.prediction,
        },
    )


def check_start(
    start: FrozenLdae,
    params: LdaeParams,
    store: StoredLatents,
    *,
    stage_1: FrozenDiffusion,
    volume_shape: tuple[int, ...] | None,
) -> None:
    """Refuse an LDAE whose encoder has other sizes than `params` ask for, or with other latents.

    `stage_1` is the frozen denoiser that is trained on: it must have the start's own sizes and
    latent statistics, since modes, centre and spread count in them.

    Raises
    ------
    ContractError
        With what to set.
    """
    _check_latents(start, store, "train_ldae")
    shape = own_latent_shape(start.config)
    ours = encoder_config(params.encoder, latent_shape=shape, volume_shape=volume_shape)
    theirs = {"kind": "latent", "modes": 0, "tissue_modes": 0} | start.config["encoder"]
    keys = sorted(ours.keys() - {"in_channels", "grid"})
    _check_sizes(
        "train_ldae",
        start,
        {"encoder": {key: theirs.get(key) for key in keys}},
        {"encoder": {key: ours[key] for key in keys}},
    )
    if not _same_stage_1(start, stage_1):
        raise ContractError(
            f"{stage_1.path}: other sizes or latent statistics than those of {start.path}, which"
            " train_ldae.start_from names; set train_ldm.start_from to the same and run"
            " `pipeline train-ldm`"
        )


def _check_latents(start: FrozenDiffusion | FrozenLdae, store: StoredLatents, section: str) -> None:
    check_latents_fit(
        start.config,
        store,
        model=f"the model of {start.path}",
        otherwise=f"or leave {section}.start_from empty",
    )


def _check_sizes(
    section: str,
    start: FrozenDiffusion | FrozenLdae,
    theirs: dict[str, Any],
    ours: dict[str, Any],
) -> None:
    """Refuse values that differ, naming the parameters to set."""
    asked, needed = flattened(ours), flattened(theirs)
    wrong = [
        f"{section}.{name}={json.dumps(value)}"
        for name, value in needed.items()
        if asked[name] != value and name.rsplit(".", 1)[-1] not in NOT_OF_WEIGHTS
    ]
    if wrong:
        raise ContractError(
            f"{section}.start_from: {start.path} has other sizes; set {', '.join(wrong)}"
        )


def _same_stage_1(start: FrozenLdae, stage_1: FrozenDiffusion) -> bool:
    """Return whether two stages 1 have the same sizes, schedule and latent statistics."""
    keys = ("unet", "diffusion", "prediction", "statistics")
    ours, theirs = (
        flattened({key: config[key] for key in keys}) | {"unet.dropout": None}
        for config in (stage_1.config, start.config)
    )
    if ours != theirs:
        return False
    other = stage_1.diffusion.standardise.state_dict()
    return all(
        torch.equal(tensor, other[name].to(tensor.device))
        for name, tensor in start.net.diffusion.standardise.state_dict().items()
    )
