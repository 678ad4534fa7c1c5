"""What every training run shares: optimiser, learning rate, moving average, log rows."""

import math
import time
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from schemas.errors import TrainingError
from schemas.section import OptimParams

LOG_EVERY = 10
"""Steps averaged into one row of the log."""

ADAM_BETAS = (0.9, 0.99)
"""Short runs: the second moment must forget the first steps within a hundred."""


class StepModule(lightning.LightningModule):
    """A network trained by steps. Subclasses give `compute_losses` and `compute_validation`.

    `net` holds trained weights only; its exponential moving average is updated once an optimiser
    step. The log rows travel inside the checkpoint, so a resumed run continues its own curve.
    """

    def __init__(self, net: nn.Module, params: OptimParams) -> None:
        super().__init__()
        self.net = net
        self.params = params
        self.ema = AveragedModel(net, multi_avg_fn=moving_average(params.ema_decay))
        self.rows: list[dict[str, float]] = []
        self._pending: list[dict[str, float]] = []
        self._seconds_before = 0.0
        self._started = time.monotonic()

    def compute_losses(self, step: int) -> dict[str, Tensor]:
        """Return the terms of a training batch; `loss` is minimised, the others are logged."""
        raise NotImplementedError

    def compute_validation(self) -> dict[str, float]:
        """Return validation figures of the averaged weights; may be empty."""
        raise NotImplementedError

    @property
    def averaged(self) -> Any:
        """The network with averaged weights."""
        return self.ema.module

    def training_step(self, step: int) -> Tensor:
        """Return the loss of a batch; `params.accumulate` of them make a step.

        Raises
        ------
        TrainingError
            If the loss is not finite.
        """
        accumulate, batch = self.params.accumulate, step
        step = batch // accumulate
        losses = self.compute_losses(batch)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"step {step}: loss is {values['loss']}; the last good checkpoint is kept."
                " Lower lr or use precision fp32"
            )
        self._pending.append(values)
        last = batch + 1 == self.params.steps * accumulate
        if len(self._pending) == LOG_EVERY * accumulate or last:
            means = {k: sum(v[k] for v in self._pending) / len(self._pending) for k in values}
            self._add_row({"step": step + 1, "seconds": self.seconds, **means})
            self._pending.clear()
        return losses["loss"]

    def validation_step(self, _step: int) -> None:
        """Add the validation figures to the log."""
        figures = self.compute_validation()
        if figures:
            named = {f"val_{name}": value for name, value in figures.items()}
            self._add_row({"step": self.global_step, "seconds": self.seconds, **named})

    def _add_row(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        for logger in self.loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))

    @property
    def seconds(self) -> float:
        """Training time so far, over all sittings (s)."""
        return round(self._seconds_before + time.monotonic() - self._started, 1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then move the average: once an optimiser step, before any checkpoint."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.net)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is trained, in groups whose gradients are clipped apart."""
        return [{"params": list(self.net.parameters())}]

    def configure_optimizers(self) -> Any:
        """Return Adam (fused) with linear warm-up and cosine decay."""
        optimizer = torch.optim.Adam(
            self.parameter_groups(), lr=self.params.lr, betas=ADAM_BETAS, fused=True
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Clip by norm here: Lightning refuses fused optimisers under mixed precision."""
        for group in self.parameter_groups():
            nn.utils.clip_grad_norm_(group["params"], self.params.grad_clip)

    def _learning_rate(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / max(1, self.params.warmup_steps))
        return warmup * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / self.params.steps)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the log rows with the weights."""
        checkpoint["log"] = {"rows": self.rows, "pending": self._pending, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the log."""
        self.rows = checkpoint["log"]["rows"]
        self._pending = checkpoint["log"]["pending"]
        self._seconds_before = checkpoint["log"]["seconds"]


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return an in-place moving average that forgets its start: min(decay, (1 + n) / (10 + n))."""

    @torch.no_grad()
    def update(averages: Any, current: Any, num_averaged: Any) -> None:
        n = int(num_averaged)
        torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update
