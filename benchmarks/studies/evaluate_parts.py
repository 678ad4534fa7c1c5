"""What each part of `pipeline evaluate` takes: CPU seconds, and the functions that take most.

python -m benchmarks.studies.evaluate_parts --study STUDY --out evaluate-parts.md

Runs the stage `evaluate` of a finished study, into a temporary folder, part by part in one process;
the processes that a part starts count too. `--set evaluate.precision=fp32` and the like as in any
command.
"""

import argparse
import cProfile
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType

import yaml

from benchmarks.framework.harness import machine
from pipeline.evaluation import evaluate
from pipeline.study.study import Part, Study
from stages.cli import app

MOST = 12
"""Functions shown."""


def cpu_s() -> float:
    """Return CPU seconds of this process and of those that it waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def timed(
    judge: Callable[[Study], Part], name: str, took: dict[str, tuple[float, float]]
) -> Callable[[Study], Part]:
    """Return the part, which notes what it took."""

    def part(study: Study) -> Part:
        before, started = cpu_s(), time.perf_counter()
        made = judge(study)
        took[name] = (cpu_s() - before, time.perf_counter() - started)
        print(name, took[name], flush=True)
        return made

    return part


def called(code: CodeType | str) -> str:
    """Return the name of a function, with its file where it is Python's."""
    if isinstance(code, str):
        return code.strip("<>").removeprefix("built-in method ")
    return f"{Path(code.co_filename).name}: {code.co_name}"


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="", help="what else the reader should know")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    asked = parser.parse_args()
    out = asked.out.absolute()
    stages = yaml.safe_load((asked.study / "dvc.yaml").read_text())["stages"]
    command = stages["evaluate"]["cmd"].split()[1:]
    took: dict[str, tuple[float, float]] = {}
    for name, judge in evaluate.PARTS.items():
        evaluate.PARTS[name] = timed(judge, name, took)
    profile = cProfile.Profile()
    os.chdir(asked.study)
    before, started = cpu_s(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command[command.index("--out") + 1] = folder
        overrides = [word for value in asked.overrides for word in ("--set", value)]
        profile.runcall(app, [*command, *overrides, "--quiet"], standalone_mode=False)
    took["**all, with loading**"] = (cpu_s() - before, time.perf_counter() - started)
    lines = [f"# `pipeline evaluate`, part by part\n\n{machine()}. {asked.note}\n"]
    lines += ["| part | CPU-s | wall s |", "|---|---|---|"]
    lines += [f"| {name} | {cpu:.1f} | {wall:.1f} |" for name, (cpu, wall) in took.items()]
    lines += ["\n| function (wall s, this process) | calls | own s |", "|---|---|---|"]
    functions = sorted(profile.getstats(), key=lambda entry: -entry.inlinetime)
    lines += [
        f"| `{called(entry.code)}` | {entry.callcount} | {entry.inlinetime:.1f} |"
        for entry in functions[:MOST]
    ]
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
