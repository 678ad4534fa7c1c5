"""Run a StepModule with Lightning: checkpoints, exact resume, progress, log file."""

import logging
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

from pipeline.runtime.devices import native_bf16, takes_bf16
from pipeline.runtime.files import lock_store, write_atomic
from pipeline.runtime.progress import Progress
from pipeline.training.batches import StepStream
from pipeline.training.checkpoints import WholeCheckpoints
from pipeline.training.distributed import join, lightnings_environment, processes, wait
from pipeline.training.graceful_stop import StoppedError, StopsBetweenSteps
from pipeline.training.log_writers import Curves, open_log_writers
from pipeline.training.pictures import Decode, Pictures
from pipeline.training.plan import CHECKPOINT, Plan, discard_other_plans
from pipeline.training.step_module import StepModule

log = logging.getLogger(__name__)

LOG_FILE = "log.csv"


def run_training(
    module: StepModule,
    out: Path,
    *,
    plan: Plan,
    device: torch.device,
    decode: Decode | None = None,
) -> None:
    """Train to the last step, resuming from a checkpoint of the same plan.

    Checkpoints live beside `out` until `discard_checkpoints`: a run that ends before its model is
    written trains no step again. `out/log.csv` holds the curves. On return the module carries the
    final weights and average. `decode` makes volumes of latents for pictures.

    Raises
    ------
    ContractError
        If another process trains into the same folder.
    TrainingError
        If the loss is not finite or a checkpoint cannot be written; the last good one stays.
    KeyboardInterrupt, SystemExit
        After Ctrl-C, and after SIGTERM or SIGUSR1 (exit code 128 + the signal's number); the step
        under way was ended and is kept.
    """
    device, first = join(device), processes().rank == 0
    with lock_store(out) if first else nullcontext(), _quiet_lightning():
        work = _work_of(out)
        if first:
            discard_other_plans(work, out, plan)
        wait()
        checkpoint = work / CHECKPOINT if (work / CHECKPOINT).is_file() else None
        start = _resume(module, checkpoint) if checkpoint is not None else 0
        if checkpoint is not None:
            log.info("%s: resuming at step %d of %d", out, start, module.params.steps)
        if start < module.params.steps and not module.is_over():
            _log_precision(module.params.precision, device)
            callbacks: list[Callback] = [_Start(), _LastStep(work / CHECKPOINT)]
            if first:
                writers = open_log_writers(module.params.log_to, out)
                callbacks += [_Bar(start), Pictures(out, decode, writers), Curves(writers)]
            callbacks.append(StopsBetweenSteps(work / CHECKPOINT, interval=_interval(module)))
            _run(module, work, device, callbacks, checkpoint, start)
        else:
            module.to(device)
            module.on_fit_start()
        module.to("cpu")
        module.take_best()
        wait()
        if first:
            write_atomic(out / LOG_FILE, merged_rows(module.rows).to_csv(index=False))


def _run(
    module: StepModule,
    work: Path,
    device: torch.device,
    callbacks: list[Callback],
    checkpoint: Path | None,
    start: int,
) -> None:
    micro, trainer = module.params.accumulate, _trainer(module, work, device, callbacks)
    try:
        trainer.fit(
            module,
            DataLoader(StepStream(start * micro, module.params.steps * micro), batch_size=None),
            DataLoader(StepStream(0, 1), batch_size=None),
            ckpt_path=checkpoint,
            weights_only=True,
        )
    except StoppedError as stopped:
        if stopped.signal == signal.SIGINT:
            raise KeyboardInterrupt from None
        log.log(
            logging.WARNING if processes().rank == 0 else logging.DEBUG,
            "%s: stopped by %s after step %d of %d, which is kept; run the same command to go on",
            work,
            stopped.signal.name,
            stopped.step,
            module.params.steps,
        )
        raise SystemExit(128 + stopped.signal) from None
    except SystemExit:
        # Lightning's way to end after Ctrl-C, which the command line says in its own words.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def discard_checkpoints(out: Path) -> None:
    """Remove what a run was resumable from; its model is written."""
    shutil.rmtree(_work_of(out), ignore_errors=True)
    tissue_checkpoint(out).unlink(missing_ok=True)


def tissue_checkpoint(out: Path) -> Path:
    """Return where the state of the tissue net's fit lies until the model is written."""
    return out.with_name(out.name + ".tissue.ckpt")


def _work_of(out: Path) -> Path:
    return out.with_name(out.name + ".training")


def _resume(module: StepModule, checkpoint: Path) -> int:
    """Give a module the weights and the log of a checkpoint; return its step."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    module.load_state_dict(state["state_dict"])
    module.on_load_checkpoint(state)
    step: int = state["global_step"]
    return step


def _log_precision(asked: str, device: torch.device) -> None:
    if native_bf16(device):
        return
    if asked == "bf16":
        log.warning("%s: emulates bf16, many times slower than fp32; use precision auto", device)
    elif asked == "auto":
        log.info("%s: has no bf16 of its own, training in fp32", device)


def merged_rows(rows: list[dict[str, float]]) -> pd.DataFrame:
    """Return the log as one row a step: training and validation figures side by side."""
    table = pd.DataFrame(rows)
    return table.groupby("step", as_index=False).last() if len(table) else table


def _interval(module: StepModule) -> int:
    """Return the steps between validations."""
    return min(module.params.checkpoint_every, module.params.steps)


def _trainer(
    module: StepModule, work: Path, device: torch.device, callbacks: list[Callback]
) -> lightning.Trainer:
    params, own = module.params, processes()
    devices: Any = [device.index or 0] if device.type == "cuda" else 1
    # After each validation, so that a resumed run has the whole curve.
    checkpoints = ModelCheckpoint(
        dirpath=work,
        filename=Path(CHECKPOINT).stem,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=devices if own.size == 1 else own.local_size,
        num_nodes=own.nodes,
        strategy="auto" if own.size == 1 else "ddp",
        plugins=[WholeCheckpoints(), lightnings_environment()],
        default_root_dir=work,  # where nobody else's checkpoint lies
        precision="bf16-mixed" if takes_bf16(params.precision, device) else "32-true",
        max_steps=params.steps,
        accumulate_grad_batches=params.accumulate,
        val_check_interval=_interval(module) * params.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, checkpoints],
    )


class _Start(Callback):
    """Validates the weights that training starts from, where they may be the best."""

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Validate before the first step."""
        if trainer.global_step or not module.validates_start:
            return
        module.eval()
        with trainer.precision_plugin.val_step_context(), torch.no_grad():
            module.validation_step(0)
        module.train()


class _LastStep(Callback):
    """Validates the last weights and keeps them, where no interval ends with them."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Validate and save, unless that was done just now."""
        if trainer.global_step % _interval(module) == 0 or module.is_over():
            return
        module.eval()
        with trainer.precision_plugin.val_step_context(), torch.no_grad():
            module.validation_step(0)
        module.train()
        trainer.save_checkpoint(self.checkpoint)


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
        _, module, _, index, *_ = details
        if (index + 1) % module.params.accumulate:
            return
        losses = [row["loss"] for row in module.rows[-3:] if "loss" in row]
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
