"""What the autoencoder cannot hold of a scan, to be added to what is made from its latent."""

import numpy as np
from numpy.typing import NDArray

from pipeline.applications.models import Models
from pipeline.applications.sources import Source
from schemas.errors import ParamsError


def detail_of(models: Models, source: Source) -> NDArray[np.float32]:
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
