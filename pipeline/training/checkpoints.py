"""Checkpoints that replace the last one only when they are whole."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from schemas.errors import TrainingError


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the old checkpoint, without a copy in memory, then renames."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: Any,
        storage_options: Any = None,  # noqa: ARG002 (Lightning's own)
    ) -> None:
        """Write a checkpoint; `storage_options` are for remote stores, and not used.

        Raises
        ------
        TrainingError
            If it cannot be written; the previous one is untouched.
        """
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(final)
        except (OSError, RuntimeError) as error:  # torch wraps some failed writes
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            reason = str(error).splitlines()[0]
            raise TrainingError(
                f"{final}: checkpoint not written ({reason:.120}); the previous one is kept. Free"
                " disk space and run the same command again"
            ) from error
