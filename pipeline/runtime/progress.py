"""Progress with an estimate of the time left."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    pass


T = TypeVar("T")

log = logging.getLogger(__name__)


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
        """Return the estimated seconds left, or None before there is an estimate.

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
