"""Pictures of samples and reconstructions while a model trains."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from pipeline.models.frozen import FrozenAutoencoder
from pipeline.models.ldae import Standardise
from pipeline.runtime.devices import takes_bf16
from pipeline.runtime.files import write_atomic
from pipeline.training.log_writers import LogWriter

Decode = Callable[[Tensor], Tensor]
"""z_0 (B C x y z) → volumes (B 1 X Y Z)."""

ENLARGED_TO = 128
"""Least height of a slice in a picture (pixels)."""


def decoder_of(autoencoder: FrozenAutoencoder | None, standardise: Standardise) -> Decode | None:
    """Return the function from z_0 to volumes; None (pictures show latents) without one."""
    if autoencoder is None:
        return None
    net = autoencoder.net

    def decode(z_0: Tensor) -> Tensor:
        latent = standardise.to(z_0.device).inverse(z_0)
        return net.to(z_0.device).decode(latent).clamp(0, 1)

    return decode


class Pictures(Callback):
    """Writes `out/pictures/step-….png`, one row a kind of latent, one column a scan."""

    def __init__(self, out: Path, decode: Decode | None, writers: Sequence[LogWriter]) -> None:
        self.folder = out / "pictures"
        self.decode = decode
        self.writers = writers
        self.validations = 0

    def on_validation_end(self, _trainer: Any, module: Any) -> None:
        """Write the pictures of every so many validations."""
        self.validations += 1
        every = module.params.pictures_every
        if not every or self.validations % every or not hasattr(module, "pictures"):
            return
        bf16 = takes_bf16(module.params.precision, module.device)
        with torch.autocast(module.device.type, torch.bfloat16, enabled=bf16):
            rows = [z_0.float() for z_0 in module.pictures().values()]
        if not rows:
            return
        with torch.no_grad():
            shown = [(self.decode(z_0) if self.decode else z_0).cpu() for z_0 in rows]
        path = self.folder / f"step-{module.global_step:06d}.png"
        write_atomic(path, _png(montage(shown)))
        for writer in self.writers:
            writer.picture(module.global_step, path)


def montage(rows: Sequence[Tensor]) -> np.ndarray:
    """Return axial mid-slices as one uint8 image, (row, column), or with RGB of three channels.

    Every row has the grey scale of the first, which holds what is real.
    """
    middle = rows[0].shape[-1] // 2
    slices = [row[:, :3, :, :, middle].flip(3).transpose(2, 3) for row in rows]
    if slices[0].shape[1] != 3:
        slices = [s[:, :1] for s in slices]
    low, high = slices[0].amin(), slices[0].amax()
    times = -(-ENLARGED_TO // slices[0].shape[2])
    lines = [torch.cat(list(s), dim=2) for s in slices]
    image = torch.cat(lines, dim=1).repeat_interleave(times, 1).repeat_interleave(times, 2)
    grey = 255 * ((image - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return grey.round().byte().movedim(0, -1).squeeze(-1).numpy()


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    data = BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()
