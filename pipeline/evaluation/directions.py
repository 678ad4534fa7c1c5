"""Directions in y_sem space that probes found, kept with the model that they belong to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compute import digest_of, write_json
from pipeline.evaluation.linear import LinearProbe
from schemas.errors import ContractError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Direction:
    """A unit vector in standardised y_sem space; along it the target rises.

    n = (y_sem - mean) / std; n' = n + scale * spread * weight; y_sem' = n' * std + mean, so that a
    scale counts standard deviations of the fitting scans. (As published: scale * sqrt(dim).)
    """

    weight: Floats
    """(dim,), length 1."""
    mean: Floats
    """(dim,), of the fitting scans."""
    std: Floats
    """(dim,), of the fitting scans."""
    spread: float
    """Standard deviation of the fitting scans along `weight`, in standardised y_sem space."""
    towards: str
    """What lies in its direction; `--direction` takes it by this name."""


def direction_of(
    probe: LinearProbe, features: NDArray[np.floating], towards: str
) -> Direction | None:
    """Return the direction of a probe and the features (scan, dim) that it was fitted on.

    None where all weights are zero.
    """
    length = float(np.linalg.norm(probe.coef))
    if length == 0:
        return None
    weight = probe.coef / length
    standardised = (np.asarray(features, dtype=np.float64) - probe.mean) / probe.std
    return Direction(weight, probe.mean, probe.std, float(np.std(standardised @ weight)), towards)


@dataclass(frozen=True, slots=True)
class SavedDirection:
    """A direction as manipulation uses it."""

    weight: Floats
    """(dim,), length 1, in standardised y_sem space."""
    mean: Floats
    """(dim,), of the probe's fitting scans."""
    std: Floats
    """(dim,), of the probe's fitting scans."""
    spread: float
    """Standard deviation of the fitting scans along `weight`, in standardised y_sem space."""
    towards: str

    @property
    def step(self) -> Floats:
        """Return what scale 1 adds to y_sem, (dim,)."""
        return self.spread * self.weight * self.std

    @property
    def digest(self) -> str:
        """Return the sha256 of its numbers."""
        return digest_of([self.mean.tolist(), self.step.tolist()])

    def position(self, y_sem: NDArray[np.floating]) -> Floats:
        """Return where codes (scan, dim) lie along the direction, in units of the spread."""
        standardised = (np.asarray(y_sem, dtype=np.float64) - self.mean) / self.std
        along: Floats = standardised @ self.weight / self.spread
        return along

    def published(self, scale: float) -> float:
        """Return the s of n' = n + s · sqrt(dim) · weight that equals a scale."""
        return scale * self.spread / float(np.sqrt(len(self.weight)))


def write_directions(
    path: Path, directions: Mapping[str, Direction], *, digests: Mapping[str, str]
) -> None:
    """Write the probes' directions and the digests of the models that gave y_sem."""
    saved = {
        target: {
            "towards": d.towards,
            "spread": d.spread,
            "weight": d.weight.tolist(),
            "mean": d.mean.tolist(),
            "std": d.std.tolist(),
        }
        for target, d in directions.items()
    }
    write_json(path, {"digests": dict(digests), "directions": saved})


def read_direction(path: Path, name: str, *, ldae_digest: str) -> SavedDirection:
    """Return the direction `diagnosis:AD`, or by its column alone, `age_years`.

    Raises
    ------
    ContractError
        If the file is none of the probe stage's, was made with another LDAE, or holds no such
        direction.
    """
    try:
        content = json.loads(path.read_text())
        made_with, directions = content["digests"]["ldae"], content["directions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            f"{path}: expected directions.json of the probe stage; run `pipeline probe`"
        ) from error
    if made_with != ldae_digest:
        raise ContractError(
            f"{path}: directions of another LDAE ({made_with[:12]}) than --ldae"
            f" ({ldae_digest[:12]}); run embed and probe with this one"
        )
    by_name = {d["towards"]: d for d in directions.values()} | directions
    entry: dict[str, Any] | None = by_name.get(name)
    if entry is None:
        entry = directions.get(name.rsplit(":", 1)[0])
        known = ", ".join(d["towards"] for d in directions.values()) or "none"
        hint = f"; for the other way use {entry['towards']} with negative scales" if entry else ""
        raise ContractError(f"direction {name} is not among those of {path}: {known}{hint}")
    arrays = {key: np.asarray(entry[key], dtype=np.float64) for key in ("weight", "mean", "std")}
    return SavedDirection(**arrays, spread=float(entry["spread"]), towards=entry["towards"])
