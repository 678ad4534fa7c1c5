"""Load trained models for use: gradients off, evaluation mode."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.diffusion.schedule import Schedule
from pipeline.models.artefact import Artefact, load_strict, read_artefact
from pipeline.models.ldae import LatentDiffusion, Ldae, build_diffusion, build_ldae
from pipeline.models.model_folder import CONFIG
from pipeline.nets.autoencoder import Autoencoder, Voxels, latent_shape
from pipeline.runtime.digests import digest_of
from schemas.errors import ContractError
from schemas.grid import Grid, times

log = logging.getLogger(__name__)

VOXELS = "voxels"
"""Replaces the autoencoder's digest in models that are trained on volumes themselves."""


Net = Autoencoder | Voxels


@dataclass(frozen=True)
class FrozenAutoencoder:
    """A trained autoencoder, with its grid, config and folder."""

    make_net: Callable[[], Net]
    digest: str
    grid: Grid
    config: dict[str, Any]
    path: Path

    @cached_property
    def net(self) -> Net:
        """The network, built and loaded when it is first used.

        Raises
        ------
        ContractError
            If the weights do not fit.
        """
        return self.make_net()

    def latent_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return (channel, x, y, z) of the latent for a volume grid, from the config alone.

        Raises
        ------
        ValueError
            If the grid is not a multiple of the downsampling factor.
        """
        known = self.config.get("architecture")
        if known is None:
            return self.net.latent_shape(grid)
        factor = known.get("patch", 1) * 2 ** (len(known["channels"]) - 1)
        return latent_shape(grid, channels=known["latent_channels"], factor=factor)


def load_autoencoder(
    path: Path, *, device: torch.device, at_use: bool = False
) -> FrozenAutoencoder:
    """Load a frozen autoencoder.

    With `at_use` its network is built when it is first used: who finds nothing to do does not wait
    for it, and learns of weights that do not fit only then.

    Raises
    ------
    ContractError
        If the folder holds no autoencoder or its weights do not fit.
    """
    artefact = read_artefact(path, kind="ae")
    config = artefact.config
    with _described_by(artefact, "grid", "architecture"):
        grid = Grid.model_validate(config["grid"])
        boxes = tuple(config["boxes"]) if config.get("boxes") else None

    @cache
    def build() -> Autoencoder:
        with _described_by(artefact):
            net = Autoencoder(**architecture(config))
        net.box, net.boxes = _box(config, grid), boxes
        load_strict(net, artefact.tensors, source=path)
        return net.requires_grad_(False).eval().to(device)

    if not at_use:
        build()
    digest = artefact.digest if boxes is None else digest_of([artefact.digest, boxes])
    return FrozenAutoencoder(build, digest, grid, config, path)


def on_grid(autoencoder: FrozenAutoencoder, grid: Grid) -> FrozenAutoencoder:
    """Return the autoencoder for volumes on another grid than it was trained on.

    It is convolutional, so the shape is free; smaller volumes are zero-padded to the training
    shape. Another voxel size than in training is allowed, with a warning.

    Raises
    ------
    ContractError
        If an axis is no multiple of the downsampling factor.
    """
    try:
        autoencoder.latent_shape(grid.shape)
    except ValueError as error:
        raise ContractError(f"{autoencoder.path}: {error}; set preprocess.grid.shape") from error

    @cache
    def build() -> Net:
        net = copy.copy(autoencoder.net)
        if isinstance(net, Autoencoder):
            net.box = _box(autoencoder.config, grid)
        return net

    if not grid.same_zooms(trained := trained_grid(autoencoder.config)):
        log.warning(
            "%s: trained on voxels of %s mm, used on %s mm; `pipeline evaluate --what ae`"
            " tells how well it does there",
            autoencoder.path,
            times(trained.zooms),
            times(grid.zooms),
        )
    return replace(autoencoder, grid=grid, make_net=build)


def for_volumes(autoencoder: FrozenAutoencoder, grid: Grid) -> FrozenAutoencoder:
    """Return the autoencoder for volumes on this grid if it is `portable`, else unchanged.

    Raises
    ------
    ContractError
        As `on_grid` does.
    """
    return on_grid(autoencoder, grid) if autoencoder.config.get("portable") else autoencoder


def intensity_rule(config: dict[str, Any]) -> dict[str, Any]:
    """Return the preprocessing parameters of the intensity scale that the autoencoder expects.

    Empty if its config does not record them.
    """
    rule = dict(config.get("intensity") or {})
    if "intensity_percentiles" in rule:
        low, high = rule["intensity_percentiles"]
        rule["intensity_percentiles"] = (float(low), float(high))
    return rule


def trained_grid(config: dict[str, Any]) -> Grid:
    """Return the grid that an autoencoder was trained on, before any adoption."""
    return Grid.model_validate(config.get("trained_grid", config["grid"]))


def _box(config: dict[str, Any], grid: Grid) -> tuple[int, ...] | None:
    """Return the shape that the autoencoder was trained on, if its voxel size is the grid's."""
    trained = trained_grid(config)
    return trained.shape if trained.same_zooms(grid) else None


def voxels_as_latents(grid: Grid, path: Path) -> FrozenAutoencoder:
    """Return an identity in place of the autoencoder, for models that read volumes as latents."""
    return FrozenAutoencoder(Voxels, VOXELS, grid, {}, path)


def architecture(config: dict[str, Any]) -> dict[str, Any]:
    """Return the network's arguments from an artefact's config, lists as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config["architecture"].items()}


@contextmanager
def _described_by(artefact: Artefact, *needed: str) -> Iterator[None]:
    """Refuse a config that lacks a needed key, or from which no network can be built."""
    try:
        for name in needed:
            artefact.config[name]
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ContractError(
            f"{artefact.path / CONFIG}: describes no model of this version ({reason}); restore it,"
            " or train the model again"
        ) from error


def _build_device(artefact: Artefact) -> torch.device:
    """Return the device to build a network on: `meta` if it takes over mapped tensors."""
    return torch.device("meta" if artefact.mapped else "cpu")


def _load(net: nn.Module, diffusion: LatentDiffusion, artefact: Artefact) -> None:
    load_strict(net, artefact.tensors, source=artefact.path, take=artefact.mapped)
    if artefact.mapped:  # the schedule is computed, not stored
        diffusion.schedule = Schedule(**artefact.config["diffusion"])


@dataclass(frozen=True, slots=True)
class FrozenDiffusion:
    """A trained stage 1, with its digest, config and folder."""

    diffusion: LatentDiffusion
    digest: str
    config: dict[str, Any]
    path: Path


@dataclass(frozen=True, slots=True)
class FrozenLdae:
    """A trained LDAE, with its digest, config and folder."""

    net: Ldae
    digest: str
    config: dict[str, Any]
    path: Path


def encoders_copies(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names of the estimator's tensors that the encoder has too: modes, centre, spread.

    A model for the package stores them once.
    """
    return {
        name
        for name in tensors
        if name.startswith("estimator.")
        and (own := tensors.get(name.replace("estimator.", "encoder.", 1))) is not None
        and torch.equal(own, tensors[name])
    }


def _with_weights(net: Ldae, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with what models of before go without.

    The gain of G's field is 1 then, and the denoiser is trusted alone.
    """
    later = ("estimator.gain", "estimator.prior.variance", "estimator.prior.trust")
    return {n: v for n, v in net.state_dict().items() if n in later} | tensors


def _with_encoders_modes(net: Ldae, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with those that a model for the package stores once."""
    missing = {
        name: tensors[own]
        for name in net.state_dict()
        if name not in tensors
        and name.startswith("estimator.")
        and (own := name.replace("estimator.", "encoder.", 1)) in tensors
    }
    return tensors | missing


def load_diffusion(path: Path, *, device: torch.device) -> FrozenDiffusion:
    """Load a frozen stage 1 (denoiser, schedule, latent statistics).

    Raises
    ------
    ContractError
        If the folder holds no such model or its weights do not fit.
    """
    artefact = read_artefact(path, kind="ldm")
    needed = ("autoencoder_digest", "grid", "latent_shape", "posterior")
    with _described_by(artefact, *needed), _build_device(artefact):
        diffusion = build_diffusion(artefact.config)
    _load(diffusion, diffusion, artefact)
    diffusion.requires_grad_(False).eval().to(device)
    return FrozenDiffusion(diffusion, artefact.digest, artefact.config, path)


def load_ldae(path: Path, *, device: torch.device) -> FrozenLdae:
    """Load a frozen LDAE (stage 1, semantic encoder, gradient estimator).

    Raises
    ------
    ContractError
        If the folder holds no such model or its weights do not fit.
    """
    artefact = read_artefact(path, kind="ldae")
    needed = ("autoencoder_digest", "grid", "latent_shape")
    with _described_by(artefact, *needed), _build_device(artefact):
        net = build_ldae(artefact.config)
    tensors = _with_weights(net, _with_encoders_modes(net, artefact.tensors))
    artefact = replace(artefact, tensors=tensors)
    _load(net, net.diffusion, artefact)
    net.requires_grad_(False).eval().to(device)
    return FrozenLdae(net, artefact.digest, artefact.config, path)
