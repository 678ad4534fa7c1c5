"""Run a StepModule with Lightning: checkpoints, exact resume, progress, log file."""

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

from pipeline.compute import Progress, write_atomic, write_json
from pipeline.stores.builder import lock_store
from pipeline.training.batches import StepStream
from pipeline.training.module import StepModule
from schemas.errors import ContractError

log = logging.getLogger(__name__)

LOG_FILE = "log.csv"


def fit(module: StepModule, out: Path, *, fingerprint: str, device: torch.device) -> None:
    """Train to the last step, resuming from a checkpoint of the same fingerprint.

    Checkpoints live beside `out` and go away when the run is complete; `out/log.csv` holds the
    curves. On return the module carries the final weights and average.

    Raises
    ------
    ContractError
        If another process trains into the same folder.
    TrainingError
        If the loss is not finite; the last good checkpoint stays.
    """
    with lock_store(out), _quiet_lightning():
        work = out.with_name(out.name + ".training")
        checkpoint = _resume_point(work, fingerprint)
        start = 0
        if checkpoint is not None:
            start = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
            log.info("%s: resuming at step %d of %d", out, start, module.params.steps)
        trainer = _trainer(module, out, work, device, start)
        batches = StepStream(
            *(step * module.params.accumulate for step in (start, module.params.steps))
        )
        trainer.fit(
            module,
            DataLoader(batches, batch_size=None),
            DataLoader(StepStream(0, 1), batch_size=None),
            ckpt_path=checkpoint,
            weights_only=True,
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        module.to("cpu")
        write_atomic(out / LOG_FILE, merged_rows(module.rows).to_csv(index=False))
        shutil.rmtree(work, ignore_errors=True)


def merged_rows(rows: list[dict[str, float]]) -> pd.DataFrame:
    """Return the log as one row a step: training and validation figures side by side."""
    table = pd.DataFrame(rows)
    return table.groupby("step", as_index=False).last() if len(table) else table


def _resume_point(work: Path, fingerprint: str) -> Path | None:
    plan = work / "plan.json"
    if plan.is_file() and json.loads(plan.read_text()).get("fingerprint") == fingerprint:
        checkpoint = work / "last.ckpt"
        return checkpoint if checkpoint.is_file() else None
    shutil.rmtree(work, ignore_errors=True)
    write_json(plan, {"fingerprint": fingerprint})
    return None


def _trainer(
    module: StepModule, out: Path, work: Path, device: torch.device, start: int
) -> lightning.Trainer:
    params = module.params
    every = min(params.checkpoint_every, params.steps)
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision="bf16-mixed" if params.precision == "bf16" else "32-true",
        max_steps=params.steps,
        accumulate_grad_batches=params.accumulate,
        val_check_interval=every * params.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=_loggers(getattr(params, "loggers", ()), out),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            # After each validation, so that a resumed run has the whole curve.
            ModelCheckpoint(
                dirpath=work,
                filename="last",
                save_on_train_epoch_end=False,
                enable_version_counter=False,
            ),
            _Bar(start),
        ],
    )


def _loggers(names: tuple[str, ...], out: Path) -> Any:
    """Return Lightning's loggers of these names, or False where there is none."""
    made: list[Any] = []
    try:
        if "tensorboard" in names:
            from lightning.pytorch.loggers import TensorBoardLogger

            made.append(TensorBoardLogger(out, name="tensorboard", version=""))
        if "dvclive" in names:
            from dvclive.lightning import DVCLiveLogger

            made.append(DVCLiveLogger(dir=str(out / "dvclive"), save_dvc_exp=False))
    except ImportError as error:
        raise ContractError(
            f"train_ae.loggers: {error.name or error} is not installed; pip install"
            " 'ldae-pipeline[track]', or leave it out"
        ) from error
    return made or False


class _Bar(Callback):
    """Progress with loss and ETA on stderr."""

    bar: Progress

    def __init__(self, start: int) -> None:
        self.start = start

    def on_train_start(self, *modules: Any) -> None:
        """Start the bar."""
        _, module = modules
        self.bar = Progress("train", total=module.params.steps, done=self.start)
        self.bar.__enter__()

    def on_train_batch_end(self, *details: Any) -> None:
        """Advance the bar."""
        losses = [row["loss"] for row in details[1].rows[-3:] if "loss" in row]
        if (details[-1] + 1) % details[1].params.accumulate == 0:
            self.bar.advance(f"loss {losses[-1]:.4g}" if losses else "")

    def on_train_end(self, *_: Any) -> None:
        """Stop the bar."""
        self.bar.__exit__()

    def on_exception(self, *_: Any) -> None:
        """Stop the bar."""
        if hasattr(self, "bar"):
            self.bar.__exit__()


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice out of the users' way."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings(
            "ignore", message=".*(isinstance.treespec|does not have many workers).*"
        )
        try:
            yield
        finally:
            logger.setLevel(level)
