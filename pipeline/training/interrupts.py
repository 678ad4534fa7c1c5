"""Ctrl-C ends the step under way and keeps it; a second one stops at once."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)


class StopsBetweenSteps(Callback):
    """Saves a checkpoint at the end of the step in which Ctrl-C came, and raises then.

    For a single process: several would have to agree on the step.
    """

    def __init__(self, checkpoint: Path, *, interval: int) -> None:
        self.checkpoint = checkpoint
        self.interval = interval
        """Optimiser steps between validations, after which a checkpoint is written anyway."""
        self.asked = False
        self.former: Any = None

    def on_train_start(self, *_: Any) -> None:
        """Take over Ctrl-C."""
        if threading.current_thread() is threading.main_thread():
            self.former = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            signal.default_int_handler(number, frame)
        self.asked = True
        log.warning("interrupted: ending this step; once more to stop at once")

    def on_train_batch_end(self, trainer: lightning.Trainer, *details: Any) -> None:
        """Save and stop if that was asked for, within an interval."""
        module, _, _, index = details[:4]
        whole = (index + 1) % module.params.accumulate == 0
        if self.asked and whole and trainer.global_step % self.interval:
            trainer.save_checkpoint(self.checkpoint)
            raise KeyboardInterrupt

    def on_train_batch_start(self, trainer: lightning.Trainer, *details: Any) -> None:
        """Stop between intervals: the validation was waited for, and wrote a checkpoint."""
        module, _, index = details[:3]
        first = index % module.params.accumulate == 0
        if self.asked and first and trainer.global_step % self.interval == 0:
            raise KeyboardInterrupt

    def on_train_end(self, *_: Any) -> None:
        """Give Ctrl-C back."""
        self._give_back()

    def on_exception(self, *_: Any) -> None:
        """Give Ctrl-C back."""
        self._give_back()

    def _give_back(self) -> None:
        if self.former is not None:
            signal.signal(signal.SIGINT, self.former)
            self.former = None
