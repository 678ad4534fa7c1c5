"""The stages of a study by this build and by a former one, in turns: CPU and wall seconds, memory.

git worktree add --detach FORMER 7c066d2
python -m benchmarks.studies.against_former --former FORMER --out OUT.md

Both builds run with the packages of this environment, each in a study of its own. A stage of the
one is followed by the same stage of the other, so that other work on the machine hits both.
CPU seconds are those of a stage's process and of the workers that it waited for.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from benchmarks.framework.harness import machine

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cost:
    """What a stage took."""

    cpu_s: float
    wall_s: float


def run_stage(study: Path, build: Path, stage: str) -> Cost:
    """Run one stage of a study's dvc.yaml with a build's code; one that it lacks costs nothing."""
    stages = yaml.safe_load((study / "dvc.yaml").read_text())["stages"]
    if stage not in stages:
        return Cost(0.0, 0.0)
    started, before = time.perf_counter(), _cpu_of_children()
    with (study / f"{stage}.log").open("w") as log:
        subprocess.run(
            stages[stage]["cmd"],
            shell=True,
            check=True,
            cwd=study,
            env=_environment(study, build),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return Cost(_cpu_of_children() - before, time.perf_counter() - started)


def make_study(study: Path, build: Path, preset: str) -> None:
    """Write an empty study of a preset with a build's code."""
    study.mkdir(parents=True)
    _environment(study, build)
    subprocess.run(
        [sys.executable, "-m", "stages.cli", "init", str(study), "--preset", preset, "--force"],
        check=True,
        env=os.environ | {"PYTHONPATH": str(build)},
        stdout=subprocess.DEVNULL,
        cwd=study.parent,
    )


def _environment(study: Path, build: Path) -> dict[str, str]:
    """Return an environment whose command `pipeline` is that of a build."""
    commands = study.parent / f"{study.name}-bin"
    commands.mkdir(exist_ok=True)
    shim = commands / "pipeline"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stages.cli "$@"\n')
    shim.chmod(0o755)
    path = os.pathsep.join([str(commands), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "PYTHONPATH": str(build)}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(costs: dict[str, dict[str, Cost]]) -> str:
    """Return the Markdown table of {stage: {build: cost}}."""
    lines = [
        "| stage | former CPU-s | now CPU-s | ratio | former wall s | now wall s | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    both = {stage: (cost["former"], cost["now"]) for stage, cost in costs.items()}
    sums = [
        Cost(sum(c[i].cpu_s for c in both.values()), sum(c[i].wall_s for c in both.values()))
        for i in (0, 1)
    ]
    for stage, (former, now) in [*both.items(), ("**all**", (sums[0], sums[1]))]:
        lines.append(
            f"| {stage} | {former.cpu_s:.0f} | {now.cpu_s:.0f} | {former.cpu_s / now.cpu_s:.1f}× |"
            f" {former.wall_s:.0f} | {now.wall_s:.0f} | {former.wall_s / now.wall_s:.1f}× |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every stage by both builds and write what each took, as it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--former", type=Path, required=True, help="checkout of the former build")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="", help="what else the reader should know")
    arguments = parser.parse_args()
    builds = {"former": arguments.former.absolute(), "now": ROOT}
    with tempfile.TemporaryDirectory() as name:
        folder = (arguments.folder or Path(name)).absolute()
        for who, build in builds.items():
            if not (folder / who).exists():
                make_study(folder / who, build, arguments.preset)
        stages = yaml.safe_load((folder / "now/dvc.yaml").read_text())["stages"]
        costs: dict[str, dict[str, Cost]] = {}
        for stage in stages:
            costs[stage] = {
                who: run_stage(folder / who, build, stage) for who, build in builds.items()
            }
            print(
                stage, json.dumps({who: asdict(c) for who, c in costs[stage].items()}), flush=True
            )
            title = f"# Preset `{arguments.preset}`, this build and a former one in turns"
            arguments.out.write_text(f"{title}\n\n{machine()}. {arguments.note}\n\n{table(costs)}")


if __name__ == "__main__":
    main()
