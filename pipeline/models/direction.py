"""Directions in y_sem space, fitted by probes and kept in directions.json."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import write_json
from schemas.errors import ContractError
from schemas.metrics import Prediction

Floats = NDArray[np.float64]

FILE = "directions.json"
OF_STUDY = Path("reports") / "probe" / FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """Linear probe along its direction: slope · position + intercept, a log-odds or a value."""

    kind: Prediction
    slope: float
    """Change of the output for one unit of standardised y_sem along the direction."""
    intercept: float
    classes: tuple[str, str] | None = None
    """Negative and positive class."""


def subject_mark(subject_id: str) -> str:
    """Return the hash that replaces a subject id in directions.json."""
    return digest_of(["subject", subject_id])[:16]


@dataclass(frozen=True, slots=True)
class Direction:
    """Where codes lie by a probe, and how they move there.

    n = (y_sem - mean) / std lies at n @ weight / spread, so that a scale counts standard deviations
    of the fitting scans. The weight is what tells the target best, which leaves out whatever says
    nothing new. So codes move along the pattern (Haufe et al. 2014): how codes of the fitting scans
    differ, all numbers together, where their places differ by 1. n' = n + scale * pattern lies
    `scale` further along. As published: n' = n + scale * spread * weight, of the same length along.
    """

    weight: Floats
    """(dim,), length 1."""
    mean: Floats
    """(dim,), mean of the fitting scans."""
    std: Floats
    """(dim,), standard deviation of the fitting scans."""
    spread: float
    """Standard deviation of the fitting scans along `weight`, in standardised y_sem space."""
    towards: str
    """Name of the end that the direction points to (`diagnosis:AD`), for `--direction`."""
    assumed_spread: bool = False
    """Whether the spread is unknown and taken as 1."""
    pattern: Floats | None = None
    """(dim,), in standardised y_sem for scale 1; None moves along the weight."""

    @property
    def unit(self) -> str:
        """Return the unit of scales, in words."""
        if self.assumed_spread:
            return "length 1 in standardised y_sem; the fitting scans' spread was not published"
        return "standard deviations of y_sem along the direction, probe's fitting scans"

    @property
    def step(self) -> Floats:
        """Return the change of y_sem for scale 1, (dim,)."""
        along = self.spread * self.weight if self.pattern is None else self.pattern
        return along * self.std

    @property
    def reader(self) -> Floats:
        """Return what a change of y_sem (dim,) is multiplied with to tell its scale."""
        return self.weight / (self.spread * self.std)

    @property
    def of_weights(self) -> "Direction":
        """Return the same direction, moving along its weight, as published."""
        return replace(self, pattern=None)

    @property
    def digest(self) -> str:
        """Return the sha256 of mean and step."""
        return digest_of([self.mean.tolist(), self.step.tolist()])

    def position(self, y_sem: NDArray[np.floating]) -> Floats:
        """Return the positions of codes (scan, dim) along the direction, in units of the spread."""
        standardised = (np.asarray(y_sem, dtype=np.float64) - self.mean) / self.std
        along: Floats = standardised @ self.weight / self.spread
        return along

    def published(self, scale: float) -> float:
        """Return the s of n' = n + s · sqrt(dim) · weight that equals a scale."""
        return scale * self.spread / float(np.sqrt(len(self.weight)))

    def from_published(self, scale: float) -> float:
        """Return the scale that equals an s of n' = n + s · sqrt(dim) · weight."""
        return scale * float(np.sqrt(len(self.weight))) / self.spread


def write_directions(
    path: Path,
    directions: Mapping[str, Direction],
    *,
    digests: Mapping[str, str],
    readouts: Mapping[str, Readout] | None = None,
    fitted_subjects: Iterable[str] = (),
    assumed_spread: bool = False,
    imported: Mapping[str, Any] | None = None,
) -> None:
    """Write the probes' directions and the digests of the models that gave y_sem.

    `readouts` are the probes along the directions; `fitted_subjects` are those they were fitted on.
    `imported` names the files they were imported from.
    """
    saved = {}
    for target, d in directions.items():
        saved[target] = {
            "towards": d.towards,
            "spread": d.spread,
            "weight": d.weight.tolist(),
            "mean": d.mean.tolist(),
            "std": d.std.tolist(),
        }
        if d.pattern is not None:
            saved[target]["pattern"] = d.pattern.tolist()
        if assumed_spread:
            saved[target]["assumed_spread"] = True
        if readouts and target in readouts:
            saved[target]["probe"] = asdict(readouts[target])
    content: dict[str, Any] = {"digests": dict(digests), "directions": saved}
    if imported is not None:
        content["imported"] = dict(imported)
    if marks := sorted({subject_mark(subject) for subject in fitted_subjects}):
        content["fitted_subjects"] = marks
    write_json(path, content)


def read_direction(path: Path, name: str, *, ldae_digest: str, dim: int | None = None) -> Direction:
    """Return a direction by its name, `diagnosis:AD`, or by its label column alone, `age_years`.

    Raises
    ------
    ContractError
        If the file was not written by the probe stage or was made with another LDAE, holds no
        such direction, or one of another length than `dim`.
    """
    try:
        content = json.loads(path.read_text())
        made_with, directions = str(content["digests"]["ldae"]), content["directions"]
        by_name = {str(d["towards"]): d for d in directions.values()} | directions
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            f"{path}: expected directions.json of the probe stage; run `pipeline probe`"
        ) from error
    if made_with != ldae_digest:
        raise ContractError(
            f"{path}: directions of another LDAE ({made_with[:12]}) than --ldae"
            f" ({ldae_digest[:12]}); run embed and probe with this one"
        )
    entry: dict[str, Any] | None = by_name.get(name)
    if entry is None:
        entry = directions.get(name.rsplit(":", 1)[0])
        known = ", ".join(d["towards"] for d in directions.values()) or "none"
        hint = f"; for the other way use {entry['towards']} with negative scales" if entry else ""
        raise ContractError(f"direction {name} is not among those of {path}: {known}{hint}")
    try:
        keys = ["weight", "mean", "std", *(["pattern"] if "pattern" in entry else [])]
        arrays = {k: np.asarray(entry[k], dtype=np.float64) for k in keys}
        spread = float(entry["spread"])
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(f"{path}: {name} is incomplete; run `pipeline probe`") from error
    lengths = {len(np.ravel(values)) for values in arrays.values()}
    if len(lengths) > 1 or dim not in (None, *lengths):
        expected = f"{dim}, the length of y_sem of --ldae" if dim else "one length"
        sizes = ", ".join(f"{key} {len(np.ravel(values))}" for key, values in arrays.items())
        raise ContractError(
            f"{path}: {name} has {sizes}; expected {expected}; run `pipeline probe`"
        )
    numbers = np.concatenate([*map(np.ravel, arrays.values()), [spread]])
    if not np.isfinite(numbers).all() or spread <= 0 or (arrays["std"] <= 0).any():
        raise ContractError(
            f"{path}: {name}: expected finite numbers, and spreads above 0; run `pipeline probe`"
        )
    return Direction(
        **arrays,
        spread=spread,
        towards=str(entry["towards"]),
        assumed_spread=bool(entry.get("assumed_spread")),
    )


def find_direction(
    given: Path | None, ldae: Path, name: str, *, config: Mapping[str, Any]
) -> Direction:
    """Return a direction from the given file, else of the probe stage, else of the LDAE's folder.

    `config` is that of the model in the folder `ldae`.

    Raises
    ------
    ContractError
        As `read_direction` does.
    """
    digest = str(config["weights_sha256"])
    dim = config.get("encoder", {}).get("dim")
    imported = ldae / FILE
    if given is None and imported.is_file():
        if not OF_STUDY.is_file():
            return read_direction(imported, name, ldae_digest=digest, dim=dim)
        try:
            return read_direction(OF_STUDY, name, ldae_digest=digest, dim=dim)
        except ContractError:
            return read_direction(imported, name, ldae_digest=digest, dim=dim)
    return read_direction(given or OF_STUDY, name, ldae_digest=digest, dim=dim)
