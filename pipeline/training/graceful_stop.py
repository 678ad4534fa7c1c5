"""Stop at a signal after the step under way, which is kept; a second Ctrl-C stops at once."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from pipeline.training.distributed import any_process, processes

log = logging.getLogger(__name__)

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what a cluster sends before it ends a job; what job scripts often ask it to send."""


class StoppedError(BaseException):
    """Training was asked to stop, and its last step is kept.

    No KeyboardInterrupt, which Lightning would end the whole program for.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(number, step)
        self.signal = signal.Signals(number)
        self.step = step


class StopsBetweenSteps(Callback):
    """Saves a checkpoint at the end of the step in which the signal came, and raises then.

    Several processes agree on the step: what one was sent travels with the losses of the next step
    that all take (`StepModule.training_step`).
    """

    def __init__(self, checkpoint: Path, *, interval: int) -> None:
        self.checkpoint = checkpoint
        self.interval = interval
        """Optimiser steps between validations, after which a checkpoint is written anyway."""
        self.module: Any = None
        self.former: dict[signal.Signals, Any] = {}

    def on_train_start(self, _trainer: Any, module: Any) -> None:
        """Take over the signals."""
        self.module = module
        if threading.current_thread() is threading.main_thread():
            self.former = {number: signal.signal(number, self._ask) for number in STOPPING}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again, alone = bool(self.module.asked_to_stop), processes().size == 1
        # A cluster repeats its signal, and torchrun passes on what its processes had already.
        if again and alone and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        if not again:
            name = signal.Signals(number).name
            more = "; once more to stop at once" if alone and number == signal.SIGINT else ""
            log.warning("%s: ending this step and keeping it%s", name, more)
            self.module.asked_to_stop = number

    def on_train_batch_end(self, trainer: lightning.Trainer, *details: Any) -> None:
        """Save and stop if that was asked for, within an interval."""
        module, _, _, index = details[:4]
        whole = (index + 1) % module.params.accumulate == 0
        last = trainer.global_step >= module.params.steps
        if whole and not last and trainer.global_step % self.interval and self._agreed():
            trainer.save_checkpoint(self.checkpoint)
            raise self._stopped(trainer)

    def on_train_batch_start(self, trainer: lightning.Trainer, *details: Any) -> None:
        """Stop between intervals: the validation was waited for, and wrote a checkpoint."""
        module, _, index = details[:3]
        first = index % module.params.accumulate == 0
        if first and trainer.global_step % self.interval == 0 and self._agreed():
            raise self._stopped(trainer)

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Give the signals back; stop where one came in the last step, which is kept by now."""
        self._give_back()
        if any_process(self.module.asked_to_stop, self.module.device):
            raise self._stopped(trainer)

    def on_exception(self, *_: Any) -> None:
        """Give the signals back."""
        self._give_back()

    def _agreed(self) -> bool:
        """Tell whether all processes are to stop after this step."""
        alone = processes().size == 1
        return bool(self.module.asked_to_stop if alone else self.module.told_to_stop)

    def _stopped(self, trainer: lightning.Trainer) -> StoppedError:
        return StoppedError(self.module.asked_to_stop or signal.SIGTERM, trainer.global_step)

    def _give_back(self) -> None:
        for number, former in self.former.items():
            signal.signal(number, former)
        self.former = {}
