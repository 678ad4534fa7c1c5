"""The autoencoder's residual (scan minus reconstruction), added to generated volumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.applications.generated_volumes import GeneratedVolumes, TitledVolume
from pipeline.applications.inputs import InputScan
from pipeline.models.inference import LdaeInference
from schemas.errors import ParamsError


class Residual(Protocol):
    """A residual for each of some volumes."""

    @property
    def description(self) -> str:
        """Whose residual it is."""

    def take(self, rows: slice) -> NDArray[np.float32]:
        """Return the residuals of these volumes, (B or 1, X, Y, Z)."""


@dataclass(frozen=True, slots=True)
class ScanResidual:
    """One scan's residual, the same for every volume."""

    values: NDArray[np.float32]
    """(X, Y, Z)."""
    description: str = "of the scan itself"

    def take(self, _rows: slice) -> NDArray[np.float32]:
        """Return the scan's residual, (1, X, Y, Z)."""
        return self.values[None]


@dataclass(frozen=True, slots=True)
class BlendedResidual:
    """The residuals of two scans, blended for volumes between them."""

    first: NDArray[np.float32]
    """(X, Y, Z)."""
    last: NDArray[np.float32]
    alphas: Sequence[float]
    description: str = "of both scans, blended"

    def take(self, rows: slice) -> NDArray[np.float32]:
        """Return the residuals of these volumes, (B, X, Y, Z)."""
        return np.stack([blend(self.first, self.last, alpha) for alpha in self.alphas[rows]])


@dataclass(frozen=True, kw_only=True)
class VolumesWithResidual(GeneratedVolumes):
    """Generated volumes to each of which a residual is added."""

    generated: GeneratedVolumes
    residual: Residual

    def generate(self, rows: slice) -> Float[Tensor, "B X Y Z"]:
        """Return these volumes and their residuals, summed, in [0, 1]."""
        residual = torch.from_numpy(self.residual.take(rows))
        return (self.generated.generate(rows) + residual).clamp(0, 1)

    def comparison(self) -> TitledVolume | None:
        """Return what pictures compare with, with the residual too."""
        compared = self.generated.comparison()
        if compared is None:
            return None
        residual = self.residual.take(slice(0, 1))[0]
        return TitledVolume(compared.title, np.clip(compared.volume + residual, 0, 1))


def add_residual(generated: GeneratedVolumes, residual: Residual) -> GeneratedVolumes:
    """Return generated volumes with a residual added to each."""
    return VolumesWithResidual(
        generated=generated,
        residual=residual,
        labels=generated.labels,
        details=generated.details,
        record=generated.record | {"detail": residual.description},
    )


def residual_of(models: LdaeInference, scan: InputScan) -> NDArray[np.float32]:
    """Return the preprocessed scan minus its decoded latent, (X, Y, Z).

    Raises
    ------
    ParamsError
        If the scan's volume is not at hand.
    """
    if scan.volume is None:
        raise ParamsError(f"--detail: give the --volumes that hold {scan.scan_id}")
    residual: NDArray[np.float32] = scan.volume - models.decode(scan.z_0)[0].numpy()
    return residual


def blend(
    first: NDArray[np.float32], last: NDArray[np.float32], alpha: float
) -> NDArray[np.float32]:
    """Return (1 − alpha) · first + alpha · last."""
    return np.float32(1 - alpha) * first + np.float32(alpha) * last
