"""Writers of curves and pictures beside log.csv: TensorBoard, DVCLive (optional extras)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch.callbacks import Callback

from schemas.errors import ParamsError


class LogWriter(Protocol):
    """A writer of figures and pictures."""

    def figures(self, step: int, values: dict[str, float]) -> None:
        """Write one row of the log."""

    def picture(self, step: int, path: Path) -> None:
        """Write a PNG."""

    def close(self) -> None:
        """Write what is pending, and close."""


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(folder)

    def figures(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        image = np.asarray(Image.open(path).convert("RGB"))
        self.writer.add_image("pictures", image, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class _DvcLive:
    def __init__(self, folder: Path) -> None:
        from dvclive import Live

        # DVC itself tracks the model's folder: no experiment of its own, no report, no yaml.
        self.live = Live(str(folder), resume=True, report=None, save_dvc_exp=False, dvcyaml=None)

    def figures(self, step: int, values: dict[str, float]) -> None:
        self.live.step = step
        for name, value in values.items():
            self.live.log_metric(name, value)
        self.live.make_summary()

    def picture(self, step: int, path: Path) -> None:
        self.live.step = step
        self.live.log_image(path.name, str(path))

    def close(self) -> None:
        self.live.end()


_KINDS: dict[str, Callable[[Path], LogWriter]] = {"tensorboard": _TensorBoard, "dvclive": _DvcLive}


def open_log_writers(names: Sequence[str], out: Path) -> list[LogWriter]:
    """Open the writers asked for, each in a folder of its name in `out`.

    Raises
    ------
    ParamsError
        If a package is not installed.
    """
    writers: list[LogWriter] = []
    for name in names:
        try:
            writers.append(_KINDS[name](out / name))
        except ImportError as error:
            raise ParamsError(
                f"log_to {name}: not installed ({error}); pip install 'ldae-pipeline[{name}]'"
            ) from error
    return writers


class Curves(Callback):
    """Sends new rows of the log to the writers."""

    def __init__(self, writers: Sequence[LogWriter]) -> None:
        self.writers = writers
        self.sent = 0

    def on_train_start(self, _trainer: Any, module: Any) -> None:
        """Skip what an earlier sitting has sent."""
        self.sent = len(module.rows)

    def on_train_batch_end(self, *details: Any) -> None:
        """Send what is new."""
        self._send(details[1])

    def on_train_end(self, _trainer: Any, module: Any) -> None:
        """Send the last rows and close."""
        self._send(module)
        for writer in self.writers:
            writer.close()

    def _send(self, module: Any) -> None:
        for row in module.rows[self.sent :]:
            values = {k: v for k, v in row.items() if k not in ("step", "seconds")}
            for writer in self.writers:
                writer.figures(int(row["step"]), values)
        self.sent = len(module.rows)
