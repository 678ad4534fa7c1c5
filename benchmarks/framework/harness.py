"""Time rival ways of doing one thing side by side: interleaved rounds, so that noise hits all."""

import platform
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from pipeline.runtime.devices import available_cpus, native_bf16


@dataclass
class Timed:
    """Seconds of every round of one way."""

    name: str
    work: Callable[[], object]
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the rounds (s)."""
        return statistics.median(self.seconds)

    def spread(self) -> str:
        """Fastest to slowest round."""
        return f"{min(self.seconds):.3g}–{max(self.seconds):.3g}"


def race(ways: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1) -> list[Timed]:
    """Run every way once a round, in turn, and return their times."""
    timed = [Timed(name, work) for name, work in ways.items()]
    for turn in range(warmup + rounds):
        for way in timed:
            _wait_for_device()
            started = time.perf_counter()
            way.work()
            _wait_for_device()
            if turn >= warmup:
                way.seconds.append(time.perf_counter() - started)
    return timed


def exhaust(batches: Iterable[object]) -> None:
    """Make one batch after the other, as training does: none is kept."""
    deque(batches, maxlen=0)


def table(title: str, timed: list[Timed]) -> str:
    """Return a Markdown table; the ratio is the first way's median over each one's."""
    lines = [f"### {title}", "", "| way | median s | range s | ratio |", "|---|---|---|---|"]
    for way in timed:
        ratio = timed[0].median / way.median
        lines.append(f"| {way.name} | {way.median:.3g} | {way.spread()} | {ratio:.2f}× |")
    return "\n".join(lines) + "\n"


def at_hand() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """Return the kind of machine in words: cores, device, versions."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{available_cpus()} cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
        f"{'' if native_bf16(torch.device('cpu')) else ', no bf16'}), {device},"
        f" torch {torch.__version__},"
        f" Python {platform.python_version()}"
    )


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
