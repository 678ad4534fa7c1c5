"""What a user waits for before anything happens: `--help`, and `dvc repro` with nothing to do."""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import yaml

from benchmarks.framework.harness import race
from benchmarks.framework.registry import Measurement, Row
from stages.scaffold import scaffold

CLI = [sys.executable, "-m", "stages.cli"]
DVC = [sys.executable, "-m", "dvc"]


def measure_help(folder: Path) -> Measurement:  # noqa: ARG001
    """Start the command for nothing but its help."""
    return _time("pipeline --help", [*CLI, "--help"], Path.cwd(), rounds=7)


def measure_repro(folder: Path) -> Measurement:
    """Let DVC find nothing to do in a study whose commands only made stand-ins for outputs."""
    study = folder / "study"
    scaffold(study, preset="demo", input_path=None, overrides=[], force=False)
    pipeline = yaml.safe_load((study / "dvc.yaml").read_text())
    stages = pipeline["stages"]
    for stage in stages.values():
        outputs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
        names = [next(iter(o)) if isinstance(o, dict) else o for o in outputs]
        stage["cmd"] = " && ".join(_stand_in(name) for name in names)
    (study / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    _run([*DVC, "repro", "--quiet"], study)
    return _time("dvc repro", [*DVC, "repro", "--quiet"], study, rounds=5)


def _time(name: str, command: list[str], cwd: Path, *, rounds: int) -> Measurement:
    """Return the wall time, and beside it the CPU time, which other jobs hardly change."""
    cpu: list[float] = []

    def work() -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _run(command, cwd)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    (timed,) = race({name: work}, rounds=rounds)
    return Measurement(
        value=timed.median,
        rounds={name: timed.seconds},
        numbers={"CPU-seconds, median of the rounds": statistics.median(cpu)},
    )


def _stand_in(name: str) -> str:
    """Return a shell command that makes an output, a folder where it is one."""
    path = Path(name)
    file = path / "manifest.csv" if path.suffix in {"", ".zarr"} else path
    return f"mkdir -p {file.parent} && echo step > {file}"


def _run(command: list[str], cwd: Path) -> None:
    code = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": code}
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, env=environment)


ROWS = [
    Row(
        name="help",
        what="`pipeline --help`",
        against="–",
        measure=measure_help,
        target=0.5,
        unit="s",
        seconds=5,
    ),
    Row(
        name="repro-noop",
        what="`dvc repro` with nothing to do, 10 stages",
        against="–",
        measure=measure_repro,
        target=3,
        unit="s",
        seconds=40,
    ),
]
