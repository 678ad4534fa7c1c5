"""Whether a trained model works on latents: their autoencoder, and their grid.

A model works on the latent grid that it was trained on, its own, and on smaller ones with voxels of
the same size and the same centre: what those lack is air.
"""

from pathlib import Path
from typing import Any, Protocol

from pipeline.models.contrast import check_contrast
from pipeline.models.frozen import trained_grid
from schemas.errors import ContractError
from schemas.grid import AFFINE_TOLERANCE, Grid, times
from schemas.stores import StoreAttributes


class StoredLatents(Protocol):
    """What is asked of a store of latents, or of volumes in their place."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def attributes(self) -> StoreAttributes:
        """Its digests and grid."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(channel, x, y, z)."""


def own_latent_shape(config: dict[str, Any]) -> tuple[int, ...]:
    """Return (channel, x, y, z) of the latents that a model of this config was trained on."""
    return tuple(config.get("trained_latent_shape", config["latent_shape"]))


def used_on(config: dict[str, Any], store: StoredLatents) -> dict[str, Any]:
    """Return the entries of a config for a model that is to be used on these latents."""
    return {
        "grid": store.attributes.grid.document(),
        "latent_shape": list(store.latent_shape),
        "trained_grid": trained_grid(config).document(),
        "trained_latent_shape": list(own_latent_shape(config)),
    }


def check_latents_fit(
    config: dict[str, Any],
    store: StoredLatents,
    *,
    model: str,
    otherwise: str = "or train on this store",
    contrast_allowed_by: str | None = None,
    any_contrast: bool = False,
) -> None:
    """Refuse latents that a model of this config does not work on.

    Those of another contrast are refused unless `any_contrast`; `contrast_allowed_by` is the
    parameter that the message names.

    `model` is its name, and `otherwise` a second remedy, where its weights are no one else's.

    Raises
    ------
    ContractError
        If they are of another autoencoder or contrast, or on a grid that the model does not work
        on.
    """
    if store.attributes.digests["autoencoder"] != config["autoencoder_digest"]:
        raise ContractError(
            f"{store.path}: encoded by another autoencoder than {model} was trained on;"
            f" encode with that one{_or(otherwise, config)}"
        )
    if not any_contrast:
        check_contrast(
            config,
            store.attributes.contrast,
            source=store.path,
            model=model,
            allowed_by=[contrast_allowed_by] if contrast_allowed_by else (),
        )
    check_grid_fits(
        config,
        store.attributes.grid,
        store.latent_shape,
        source=str(store.path),
        model=model,
        otherwise=otherwise,
    )


def check_grid_fits(
    config: dict[str, Any],
    grid: Grid,
    latent_shape: tuple[int, ...],
    *,
    source: str,
    model: str,
    otherwise: str = "or train on this store",
) -> None:
    """Refuse a grid that a model of this config does not work on.

    `latent_shape` is that of volumes on `grid`; `source` and `model` are names for the message, and
    `otherwise` its second remedy.

    Raises
    ------
    ContractError
        With the reason, and a grid that it works on.
    """
    own, own_grid = own_latent_shape(config), trained_grid(config)
    reason = _misfit(config, grid, latent_shape)
    if reason is not None:
        raise ContractError(
            f"{source}: latents of {times(latent_shape)} ({grid}), {model} was trained on"
            f" {times(own)} ({own_grid}): {reason}; preprocess to that grid and"
            f" encode{_or(otherwise, config)}"
        )


def _misfit(config: dict[str, Any], grid: Grid, latent_shape: tuple[int, ...]) -> str | None:
    """Return why a model of this config does not work on these latents; None if it does."""
    own, own_grid = own_latent_shape(config), trained_grid(config)
    if latent_shape[0] != own[0]:
        return f"{latent_shape[0]} channels instead of {own[0]}"
    if not grid.same_zooms(own_grid):
        return "another voxel size"
    missing = [a - b for a, b in zip(own[1:], latent_shape[1:], strict=True)]
    if min(missing) < 0:
        return "a larger grid; it takes its own and smaller ones"
    if any(n % 2 for n in missing):
        factor = own_grid.shape[0] // own[1]
        return f"each axis may be shorter by a multiple of {2 * factor} voxels alone"
    if any(
        abs(a - b) > AFFINE_TOLERANCE for a, b in zip(grid.centre, own_grid.centre, strict=True)
    ):
        return "another centre"
    if any(missing) and config.get("encoder", {}).get("kind") in ("slices", "published"):
        return "its semantic encoder reads volumes of that grid alone"
    return None


def _or(otherwise: str, config: dict[str, Any]) -> str:
    """Return a second remedy; imported weights leave no room for one."""
    return "" if "imported" in config else f", {otherwise}"
