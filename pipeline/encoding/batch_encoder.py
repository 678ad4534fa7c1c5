"""Encode uint8 volumes with the frozen autoencoder, in batches of one size."""

import logging
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.models.frozen import FrozenAutoencoder
from pipeline.stores.latents import LOGVAR_RANGE
from schemas.errors import ContractError

log = logging.getLogger(__name__)


class BatchEncoder:
    """Encoder of whole units of scans, `batch_size` at a time.

    Every batch has the same number of scans (the last is padded), so that a latent never depends
    on the number of scans encoded with it. Another batch size may change its last bit: a whole
    unit has one size, which is recorded with it.
    """

    def __init__(
        self,
        autoencoder: FrozenAutoencoder,
        *,
        batch_size: int,
        precision: str,
        device: torch.device,
    ) -> None:
        self.net = autoencoder.net.to(device)
        if device.type == "cpu":  # 1.1 to 1.3 times as fast there; half as fast on an H100
            self.net = self.net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.batch_size = batch_size
        self.autocast = precision == "bf16"
        self.device = device

    def encode(
        self, volumes: np.ndarray, *, advance: Callable[[int], None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and log-variance, float16 (N, C, x, y, z), of uint8 (N, X, Y, Z).

        If the device's memory does not hold a batch, all of these scans are encoded again in
        batches of half the size, and so are those that follow. `advance` is called with the number
        of scans encoded, or with a negative number when they are encoded again.

        Raises
        ------
        ContractError
            If a single scan does not fit.
        """
        while True:
            done: list[int] = []
            try:
                parts = []
                for start in range(0, len(volumes), self.batch_size):
                    parts.append(self._encode_batch(volumes[start : start + self.batch_size]))
                    done.append(len(parts[-1][0]))
                    advance(done[-1])
                return np.concatenate([m for m, _ in parts]), np.concatenate([v for _, v in parts])
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            advance(-sum(done))
            self._halve()

    def _halve(self) -> None:
        if self.batch_size == 1:
            raise ContractError(
                f"{self.device}: out of memory with one scan a batch; finished chunks are kept, run"
                " the same command with more free memory or another --device"
            )
        log.warning(
            "%s: out of memory with %d scans a batch, going on with %d",
            self.device,
            self.batch_size,
            self.batch_size // 2,
        )
        self.batch_size //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _encode_batch(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(batch)
        if count < self.batch_size:
            batch = np.concatenate([batch, np.repeat(batch[-1:], self.batch_size - count, axis=0)])
        x = torch.from_numpy(batch).to(self.device)[:, None].float() / 255
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            mean, logvar = self.net.encode(x)
        return _half(mean[:count]), _half(logvar[:count].clamp(*LOGVAR_RANGE))


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        phrase in text for phrase in ("out of memory", "not enough memory", "can't allocate memory")
    )


def _half(values: Float[Tensor, "B C X Y Z"]) -> np.ndarray:
    return values.float().cpu().numpy().astype(np.float16)
