"""What `pipeline explore` costs: start, first brain, previews, whole brains; beside `manipulate`.

python -m benchmarks.studies.explore --study my-study --out explore.md

A server of its own for each number of threads; CPU seconds are those of its process, wall seconds
those of the one who asks. Of repeated requests, the median. `manipulate` makes one brain, and its
file must have the digest of the one that the page gives away.
"""

import argparse
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.framework.harness import machine

SCALES = (0.4, 0.8, 1.2, 1.6, 2.0)


@dataclass
class Costs:
    """Seconds of each step, in order."""

    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, spent: list[tuple[float, float]]) -> None:
        """Keep the medians of (CPU, wall) of a step."""
        self.cpu[name] = statistics.median(cpu for cpu, _ in spent)
        self.wall[name] = statistics.median(wall for _, wall in spent)


class Served:
    """`pipeline explore` in a process of its own, and its costs so far."""

    def __init__(self, study: Path, threads: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "stages.cli", "explore", str(study)]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, stderr=subprocess.DEVNULL
        )
        self.watched = psutil.Process(self.process.pid)
        assert self.process.stdout is not None
        line = next(text for text in self.process.stdout if text.startswith("explore: "))
        found = re.fullmatch(r"explore: (http.*/)\?token=(\S+)\n", line)
        assert found, line
        self.address, self.token = found[1], found[2]

    def cpu(self) -> float:
        """Return the CPU seconds of the process."""
        times = self.watched.cpu_times()
        return float(times.user + times.system)

    def ask(self, path: str, question: dict[str, Any] | None = None) -> bytes:
        """Return the body of an answer."""
        request = urllib.request.Request(
            f"{self.address}api/{path}",
            data=None if question is None else json.dumps(question).encode(),
            headers={"x-explore-token": self.token},
        )
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())

    def scans(self) -> list[str]:
        """Return the scans of the study."""
        return list(json.loads(self.ask("study"))["scans"])

    def timed(self, path: str, question: dict[str, Any] | None = None) -> tuple[float, float]:
        """Return the CPU and wall seconds of a question."""
        cpu, wall = self.cpu(), time.perf_counter()
        self.ask(path, question)
        return self.cpu() - cpu, time.perf_counter() - wall

    def peak_gb(self) -> float:
        """Return the peak of resident memory (GB)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024 / 1e9


def measure(study: Path, threads: int, scans: list[str], direction: str) -> tuple[Costs, float]:
    """Return the costs of a server with so many threads, and its peak of memory (GB)."""
    costs, served = Costs(), Served(study, threads)
    try:
        served.ask(f"volume?scan={scans[0]}")
        costs.note(
            "start, until the first brain's bytes",
            [(served.cpu(), time.perf_counter() - served.started)],
        )
        while json.loads(served.ask("status"))["models"] == "loading":
            time.sleep(0.1)
        costs.note(
            "start, until the models are loaded",
            [(served.cpu(), time.perf_counter() - served.started)],
        )

        def brain(scan: str, scale: float, quality: str) -> dict[str, Any]:
            move = {"kind": "move", "scan": scan, "direction": direction, "scale": scale}
            return {"brain": move | {"quality": quality}}

        for quality, name in (("preview", "preview"), ("full", "whole brain")):
            first, later = [], []
            for scan in scans:
                spent = [served.timed("brain", brain(scan, scale, quality)) for scale in SCALES]
                first.append(spent[0])
                later += spent[1:]
            costs.note(f"a person's first {name}, with its inversion", first)
            costs.note(f"each further {name}", later)
        for scan in scans:
            served.ask("brain", brain(scan, 0.0, "full"))  # that all others are compared with
        regions = [
            served.timed("regions", brain(scan, scale, "full"))
            for scan in scans
            for scale in SCALES
        ]
        costs.note("regions of a brain, the first time", regions[:1])
        costs.note("regions of each further brain", regions[1:])
        costs.note(f"t-SNE of {len(served.scans())} scans", [served.timed("layout?kind=tsne")])
        return costs, served.peak_gb()
    finally:
        served.process.terminate()
        served.process.wait()


def manipulated(
    study: Path, threads: int, scan: str, direction: str
) -> tuple[tuple[float, float], str]:
    """Return CPU and wall seconds of `pipeline manipulate`, one scale, and its file's digest."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stages.cli", "manipulate", "--scan", scan]
        command += ["--direction", direction, f"--scale={SCALES[0]}", "--out", folder]
        command += ["--latents", "data/latents.zarr", "--volumes", "data/volumes.zarr"]
        wall = time.perf_counter()
        before = os.times()
        subprocess.run(command, cwd=study, env=environment, check=True, capture_output=True)
        after = os.times()
        spent = sum(after[2:4]) - sum(before[2:4]), time.perf_counter() - wall
        [file] = Path(folder).glob("*.nii.gz")
        return spent, hashlib.sha256(file.read_bytes()).hexdigest()


def given_away(study: Path, threads: int, scan: str, direction: str) -> str:
    """Return the digest of the NIfTI that the page gives away.

    Sums come out alike with as many threads alone.
    """
    served = Served(study, threads)
    try:
        move = {"kind": "move", "scan": scan, "direction": direction, "scale": SCALES[0]}
        return hashlib.sha256(served.ask("nifti", {"brain": move})).hexdigest()
    finally:
        served.process.terminate()
        served.process.wait()


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, required=True, help="A folder made by dvc repro.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    study = args.study.resolve()
    document = _study_document(study)
    scans = document["scans"][: args.people]
    direction = document["directions"][0]["name"]
    columns: dict[int, Costs] = {}
    memory: dict[int, float] = {}
    for threads in args.threads:
        columns[threads], memory[threads] = measure(study, threads, scans, direction)
        spent, digest = manipulated(study, threads, scans[0], direction)
        columns[threads].note("for comparison: `pipeline manipulate` with one scale", [spent])
    same = given_away(study, threads, scans[0], direction) == digest
    heads = [f"{n} thread{'s' * (n > 1)}: CPU s | wall s" for n in columns]
    lines = [
        f"{machine()}; {len(document['scans'])} scans, grid {document['grid']['shape']},"
        f" {document['status']['full_steps'] or 'default'} steps; {len(scans)} people,"
        f" {len(SCALES)} places each; load average at the end {os.getloadavg()[0]:.1f}",
        "",
        f"| | {' | '.join(heads)} |",
        "|---|" + "---|---|" * len(heads),
    ]
    for name in columns[args.threads[0]].cpu:
        cells = [f"{c.cpu[name]:.1f} | {c.wall[name]:.1f}" for c in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    peaks = ", ".join(f"{gb:.2f} GB with {n}" for n, gb in memory.items())
    lines += ["", f"Peak memory of the server: {peaks}.", ""]
    lines += [f"The page's file has the digest of `manipulate`'s: {'yes' if same else 'NO'}."]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


def _study_document(study: Path) -> dict[str, Any]:
    served = Served(study, 1)
    try:
        while json.loads(served.ask("status"))["models"] == "loading":
            time.sleep(0.1)
        document: dict[str, Any] = json.loads(served.ask("study"))
        return document
    finally:
        served.process.terminate()
        served.process.wait()


if __name__ == "__main__":
    main()
