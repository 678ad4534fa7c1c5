"""The base of every training run: optimiser, learning rate, moving average, log rows."""

import math
import time
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pipeline.runtime.digests import seed_from
from pipeline.training.distributed import mean_over_processes, processes
from schemas.errors import ParamsError, TrainingError
from schemas.section import OptimParams

LOG_EVERY = 10
"""Steps averaged into one row of the log."""

STOP = "stop"
"""Sent with the losses, so that processes agree on the step after which they stop."""

ADAM_BETAS = (0.9, 0.99)
"""Short runs: the second moment must forget the first steps within a hundred."""


class StepModule(lightning.LightningModule):
    """A network trained by steps. Subclasses give `compute_losses` and `compute_validation`.

    `net` holds trained weights only; its exponential moving average is updated once an optimiser
    step. The log rows travel inside the checkpoint, so a resumed run continues its own curve.
    """

    early_stop_metric = "loss"
    """The validation figure that early stopping watches."""

    def __init__(self, net: nn.Module, params: OptimParams) -> None:
        super().__init__()
        self.net = net
        self.params = params
        self.ema = AveragedModel(net, multi_avg_fn=moving_average(params.ema_decay))
        self.ema.requires_grad_(False)
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None
        """Averaged weights of the best validation, kept where training may end early."""
        self.asked_to_stop = 0
        """The signal that asked this process to stop."""
        self.told_to_stop = False
        """Whether any process had been asked to when the last step was taken."""
        self._pending: list[dict[str, float]] = []
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._processes = processes()
        self._part = self._processes.rank

    def compute_losses(self, step: int) -> dict[str, Tensor]:
        """Return the terms of a training batch; `loss` is minimised, the others are logged."""
        raise NotImplementedError

    @property
    def validates_start(self) -> bool:
        """Whether the weights before the first step are validated too."""
        return False

    def compute_validation(self) -> dict[str, float]:
        """Return validation figures of the averaged weights; may be empty."""
        raise NotImplementedError

    @property
    def averaged(self) -> Any:
        """The network with averaged weights."""
        return self.ema.module

    @property
    def parts(self) -> int:
        """Number of parts of a step's batch: micro-batches times processes."""
        return self.params.accumulate * self._processes.size

    def local_rows(self, batch: Tensor) -> Tensor:
        """Return the rows of a step's batch that this micro-batch of this process works on."""
        return batch[self._part :: self.parts]

    def divisible(self, batch_size: int) -> int:
        """Return the batch size if it can be cut into equal parts.

        Raises
        ------
        ParamsError
            If it cannot.
        """
        if batch_size % self.parts:
            raise ParamsError(
                f"batch_size {batch_size}: cannot be cut into {self.params.accumulate}"
                f" micro-batches for each of {self._processes.size} processes; give a multiple of"
                f" {self.parts}"
            )
        return batch_size

    def training_step(self, index: int) -> Tensor:
        """Return the loss of a micro-batch.

        Raises
        ------
        TrainingError
            If the loss is not finite.
        """
        step, micro = divmod(index, self.params.accumulate)
        self._part = micro * self._processes.size + self._processes.rank
        # Dropout draws from torch's own generator, which no checkpoint holds.
        torch.manual_seed(seed_from("dropout", self.params.seed, step, self._part))
        losses = self.compute_losses(step)
        # All at once: each number by itself would wait for the GPU.
        numbers = torch.stack([value.detach().float() for value in losses.values()]).tolist()
        values = dict(zip(losses, numbers, strict=True))
        values = mean_over_processes(values | {STOP: bool(self.asked_to_stop)}, self.device)
        self.told_to_stop = values.pop(STOP) > 0
        if not math.isfinite(values["loss"]):
            raise _not_finite(step, "loss", values["loss"])
        self._pending.append(values)
        full = len(self._pending) == LOG_EVERY * self.params.accumulate
        if full or index + 1 == self.params.steps * self.params.accumulate:
            means = {k: sum(v[k] for v in self._pending) / len(self._pending) for k in values}
            self.rows.append({"step": step + 1, "seconds": self.seconds, **means})
            self._pending.clear()
        return losses["loss"]

    def validation_step(self, _step: int) -> None:
        """Add the validation figures to the log; end training where they no longer improve."""
        figures = self.compute_validation()
        if not figures:
            return
        for name, value in figures.items():
            if not math.isfinite(value):
                raise _not_finite(self.global_step, f"validation {name}", value)
        named = {f"val_{name}": value for name, value in figures.items()}
        self.rows.append({"step": self.global_step, "seconds": self.seconds, **named})
        if self.params.patience and self.early_stop_metric in figures:
            if self._since_best() == 0:
                self.best = {k: v.cpu().clone() for k, v in self.averaged.state_dict().items()}
            self.trainer.should_stop = self.is_over()

    def is_over(self) -> bool:
        """Tell whether validations have not improved for as long as patience lasts."""
        return 0 < self.params.patience <= self._since_best()

    def _since_best(self) -> int:
        """Return the number of validations after the best."""
        validations = [row for row in self.rows if f"val_{self.early_stop_metric}" in row]
        return len(validations) - 1 - validations.index(self.best_row()) if validations else 0

    def best_row(self) -> dict[str, float]:
        """Return the log row of the best validation so far."""
        metric = f"val_{self.early_stop_metric}"
        return min((row for row in self.rows if metric in row), key=lambda row: row[metric])

    def take_best(self) -> None:
        """Make the averaged weights those of the best validation, where they were kept."""
        if self.best is not None:
            self.averaged.load_state_dict(self.best)

    @property
    def seconds(self) -> float:
        """Training time so far, over all sittings (s)."""
        return round(self._seconds_before + time.monotonic() - self._started, 1)

    def on_fit_start(self) -> None:
        """Compile where asked for."""
        if self.params.compile:
            self.compile_nets()

    def compile_nets(self) -> None:
        """Compile what a step runs, in place."""
        self.net.compile()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then move the average: once an optimiser step, before any checkpoint."""
        super().optimizer_step(*args, **kwargs)
        if self.params.ema_per == "step":
            self.ema.update_parameters(self.net)

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the average once a micro-batch, where asked for."""
        if self.params.ema_per == "micro_batch":
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
        """Clip by norm here: Lightning refuses fused optimisers under mixed precision.

        Raises
        ------
        TrainingError
            If a gradient is not finite: no weight has been touched by it.
        """
        for group in self.parameter_groups():
            bound = self.params.grad_clip or math.inf
            norm = float(nn.utils.clip_grad_norm_(group["params"], bound))
            if not math.isfinite(norm):
                raise _not_finite(self.global_step, "gradient norm", norm)

    def _learning_rate(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / max(1, self.params.warmup_steps))
        return warmup * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / self.params.steps)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the log rows with the weights."""
        checkpoint["log"] = {"rows": self.rows, "pending": self._pending, "seconds": self.seconds}
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the log."""
        self.rows = checkpoint["log"]["rows"]
        self._pending = checkpoint["log"]["pending"]
        self._seconds_before = checkpoint["log"]["seconds"]
        self.best = checkpoint["best"]


def final_metrics(module: StepModule) -> dict[str, Any]:
    """Return the last value of every logged figure, and the number of trained parameters.

    Where training kept the weights of its best validation, the validation figures are theirs.
    """
    last: dict[str, Any] = {}
    for row in module.rows:
        last |= row
    if module.best is not None:
        best = module.best_row()
        last |= {k: v for k, v in best.items() if k.startswith("val_")}
        last["best_step"] = best["step"]
    last["parameters"] = sum(p.numel() for p in module.net.parameters())
    return last


def _not_finite(step: int, what: str, value: float) -> TrainingError:
    return TrainingError(
        f"step {step}: {what} is {value}; the last good checkpoint is kept. Lower lr or use"
        " precision fp32"
    )


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return an in-place moving average that forgets its start: min(decay, (1 + n) / (10 + n))."""

    @torch.no_grad()
    def update(averages: Any, current: Any, num_averaged: Any) -> None:
        n = int(num_averaged)
        torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update
