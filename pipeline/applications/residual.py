"""What the autoencoder cannot hold of a scan, to be added to what is made from its latent."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.applications.generated_volumes import Outcome
from pipeline.applications.inputs import Source
from pipeline.models.inference import LdaeInference
from schemas.errors import ParamsError


def detail_of(models: LdaeInference, source: Source) -> NDArray[np.float32]:
    """Return the preprocessed scan minus its decoded latent, (X, Y, Z).

    Raises
    ------
    ParamsError
        If the scan's volume is not at hand.
    """
    if source.volume is None:
        raise ParamsError(f"--detail: give the --volumes that hold {source.scan_id}")
    detail: NDArray[np.float32] = source.volume - models.decode(source.z_0)[0].numpy()
    return detail


def blend(
    first: NDArray[np.float32], last: NDArray[np.float32], alpha: float
) -> NDArray[np.float32]:
    """Return (1 − alpha) · first + alpha · last."""
    return np.float32(1 - alpha) * first + np.float32(alpha) * last


def with_detail(
    outcome: Outcome, detail: Callable[[slice], NDArray[np.float32]], said: str
) -> Outcome:
    """Return the outcome with `detail` of its rows, (B or 1, X, Y, Z), added to the volumes."""

    def make(rows: slice) -> Float[Tensor, "B X Y Z"]:
        return (outcome.make(rows) + torch.from_numpy(detail(rows))).clamp(0, 1)

    return replace(outcome, make=make, record=outcome.record | {"detail": said})


def with_own_detail(outcome: Outcome, own: NDArray[np.float32]) -> Outcome:
    """Return the outcome with one scan's detail, (X, Y, Z), added to every volume."""
    detailed = with_detail(outcome, lambda _: own[None], "of the scan itself")
    if outcome.beside is None:
        return detailed
    title, make = outcome.beside
    added = torch.from_numpy(own)
    return replace(detailed, beside=(title, lambda: (make() + added).clamp(0, 1)))
