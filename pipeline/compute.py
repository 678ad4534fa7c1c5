"""Where the work runs: device, seeds, threads, digests, progress."""

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.errors import ParamsError

if TYPE_CHECKING:
    import pandas as pd
    import torch


T = TypeVar("T")

log = logging.getLogger(__name__)


def resolve_device(name: str) -> "torch.device":
    """Return the torch device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises
    ------
    ParamsError
        If the device asked for is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "," in name:
        raise ParamsError(
            f"--device {name}: this command runs on one device; only encode and verify take several"
        )
    expected = ParamsError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise expected from error
    if device.type != "cuda" and name != "cpu":
        raise expected
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ParamsError(
            f"--device {name}: no such GPU ({torch.cuda.device_count()} found); use --device auto"
        )
    return device


def resolve_devices(names: str) -> "list[torch.device]":
    """Return the devices of a comma-separated list; `auto` is every GPU, else the CPU.

    Raises
    ------
    ParamsError
        If a device asked for is not there.
    """
    import torch

    if names == "auto" and torch.cuda.device_count() > 1:
        return [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    return [resolve_device(name.strip()) for name in names.split(",")]


def native_bf16(device: "torch.device") -> bool:
    """Tell whether the device computes bf16 itself.

    Emulated, it is slower than fp32: 55 times in a training step on a processor with AVX2 alone.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, lambda: False)() for test in tests)


def takes_bf16(precision: str, device: "torch.device") -> bool:
    """Tell whether `auto`, `bf16` or `fp32` means bf16 autocast on this device."""
    return precision == "bf16" or (precision == "auto" and native_bf16(device))


def available_cpus() -> int:
    """Return the number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with this many threads in the block, and as before after it.

    On the processor the number decides the order of sums, and with it the last bits.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_memory() -> int:
    """Return the memory (bytes) that this process may still take, container limits included."""
    import psutil

    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        return free
    return min(free, max(limit - used, 0))


def seed_from(*parts: object) -> int:
    """Return a 63-bit seed that depends on the parts alone, never on iteration order."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) >> 1


def digest_of(value: Any) -> str:
    """Return the sha256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def other_half(path: Path) -> Path | None:
    """Return the file that belongs to a `.hdr` or `.img` (in its letter case), there or not."""
    partner = {".hdr": ".img", ".img": ".hdr", ".HDR": ".IMG", ".IMG": ".HDR"}.get(path.suffix)
    return path.with_suffix(partner) if partner else None


def digest_image(path: Path) -> str:
    """Return the digest of an image: of both files where it is a `.hdr/.img` pair."""
    partner = other_half(path)
    if partner is None or not partner.is_file():
        return digest_file(path)
    return digest_of(sorted(digest_file(p) for p in (path, partner)))


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2, default=str) + "\n")


def write_parquet(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as Parquet, whole or not at all."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_atomic(path, buffer.getvalue())


def progress(items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
    """Yield the items beneath a progress bar with ETA on stderr; see `Progress`."""
    with Progress(label, total=total) as bar:
        for item in items:
            yield item
            bar.advance()


class Progress:
    """Progress with ETA on stderr: a bar on a terminal, else a log line now and then.

    Silent when the log level is above INFO.
    """

    seconds_between_lines = 30.0

    def __init__(self, label: str, *, total: int, done: int = 0) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True)
        self.label, self.total, self.done, self.first = label, total, done, done
        self.quiet = log.getEffectiveLevel() > logging.INFO
        self.lines = not console.is_terminal
        self.started = self.last_line = time.monotonic()
        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=self.quiet or self.lines,
        )
        self.task = self.bar.add_task(label, total=total, completed=done, note="", left="")
        self.start: tuple[float, int] | None = None
        """Time (s) and items when the first were done: what came before includes the loading."""

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, note: str = "") -> None:
        """Count one more item."""
        self._move(1, note)

    def add(self, count: int) -> None:
        """Count `count` more scans, fewer where it is negative, and note how many a second."""
        rate = (self.done + count - self.first) / max(time.monotonic() - self.started, 1e-9)
        self._move(count, f"{rate:.3g} scans/s")

    def _move(self, count: int, note: str) -> None:
        self.done += count
        now = time.monotonic()
        seconds = self._left(now)
        known = "" if seconds is None else f"ETA {timedelta(seconds=round(seconds))}"
        self.bar.update(self.task, completed=self.done, note=note, left=known)
        if self.lines and now - self.last_line > self.seconds_between_lines:
            self.last_line = now
            known = "" if seconds is None else f", {seconds:.0f} s to go"
            log.info("%s %d/%d%s %s", self.label, self.done, self.total, known, note)

    def _left(self, now: float) -> float | None:
        """Return the seconds to go, or None while nothing tells them.

        The first item took loading and compiling too, and where several processes work, theirs all
        come at once. So its time is left out, and as much again is waited for.
        """
        if self.start is None:
            self.start = (now, self.done)
        since, done = now - self.start[0], self.done - self.start[1]
        if done <= 0 or since < self.start[0] - self.started:
            return None
        return since / done * (self.total - self.done)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 scan`, `2 scans`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def few(names: Sequence[str], count: int = 5, *, separator: str = ", ") -> str:
    """Return the first names and how many follow; all of them with `--verbose`."""
    more = len(names) - count
    if more <= 0 or log.isEnabledFor(logging.DEBUG):
        return separator.join(names)
    return f"{separator.join(names[:count])} and {more:,} more (--verbose lists all)"
