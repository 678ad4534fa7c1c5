"""Read the published linear probe and its statistics as a direction and a readout."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.models.conversion.checkpoint import load_tensors
from pipeline.models.direction import Direction, Readout
from schemas.errors import ContractError

TARGET = "diagnosis"
CLASSES = ("CN", "AD")
"""Negative and positive class here. The published probe's positive class is CN."""
UNKNOWN_SPREAD = 1.0
"""Spread of the fitting scans along the direction, which was not published: one unit of
standardised y_sem stands in."""

Floats = NDArray[np.float64]


def read_probe(probe: Path, mean: Path, std: Path, *, dim: int) -> tuple[Direction, Readout]:
    """Return the direction towards AD of the published probe, and its readout.

    Raises
    ------
    ContractError
        If a file is damaged or something else, or is of another LDAE (`dim`, length of y_sem).
    """
    tensors = {key.rpartition(".")[2]: value for key, value in load_tensors(probe).items()}
    if set(tensors) != {"weight", "bias"} or tensors["bias"].numel() != 1:
        raise ContractError(
            f"{probe}: expected a linear probe, weight and one bias; found"
            f" {', '.join(sorted(tensors)[:4]) or 'no tensor'}"
        )
    weight = _vector(tensors["weight"].double().numpy(), probe, dim)
    centre, spread = (_vector(_only(path), path, dim) for path in (mean, std))
    if not (spread > 0).all():
        raise ContractError(
            f"{std}: standard deviations of zero or less; were --mean and --std swapped?"
        )
    length = float(np.linalg.norm(weight))
    if length == 0:
        raise ContractError(f"{probe}: its weights are all zero, so it has no direction")
    towards = f"{TARGET}:{CLASSES[1]}"
    direction = Direction(-weight / length, centre, spread, UNKNOWN_SPREAD, towards)
    bias = -float(tensors["bias"].double())
    return direction, Readout(kind="classification", slope=length, intercept=bias, classes=CLASSES)


def _only(path: Path) -> Floats:
    tensors = load_tensors(path)
    if len(tensors) != 1:
        raise ContractError(f"{path}: {len(tensors)} tensors, expected one, a number a feature")
    values: Floats = next(iter(tensors.values())).double().numpy()
    return values


def _vector(values: Floats, path: Path, dim: int) -> Floats:
    flat = np.ravel(values)
    if len(flat) != dim or max(values.shape, default=0) != dim:
        raise ContractError(
            f"{path}: {' × '.join(map(str, values.shape)) or 'one'} numbers, expected {dim}, the"
            " length of the encoder's y_sem"
        )
    if not np.isfinite(flat).all():
        raise ContractError(f"{path}: not finite")
    return flat
