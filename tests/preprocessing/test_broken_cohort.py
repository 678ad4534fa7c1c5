"""A cohort of broken files through the real commands: a line each, and the run goes on. Slow."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.support.broken_files import FAULTS
from tests.support.command_line import collect, environment, preprocess_command, save_brain

PEAK = """
import re, sys
from pathlib import Path
from pipeline.preprocessing import scan_task as tasks
from stages.cli import main
run_task = tasks.run_task
def peak():  # getrusage's maximum would be that of pytest, from which this process was forked
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def measured(task, *more):
    before = peak()
    record = run_task(task, *more)
    grown = peak() - before
    print("grown kB:", task.scan_id, grown, file=sys.stderr)
    return record
tasks.run_task = measured
main()
"""
MAX_GROWN_MB = 20
"""By all broken files together, over what the libraries take (360 MB). Measured: 3; the sound scan,
which comes last, adds 260."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_each_broken_file_is_one_line_and_the_run_goes_on(tmp_path: Path) -> None:
    rows = ["subject_id,path", f"good,{save_brain(tmp_path / 'good.nii.gz', 0)}"]
    for number, (breaker, _) in enumerate(FAULTS.values()):
        folder = tmp_path / f"f{number}"
        folder.mkdir()
        rows.append(f"f{number},{breaker(folder)}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    manifest = collect(tmp_path / "t.csv", tmp_path / "cohort")
    command = preprocess_command(manifest, tmp_path / "v.zarr", "--workers", "1", "--quiet")
    run = subprocess.run(
        [sys.executable, "-c", PEAK, *command[3:]],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    qc = pd.read_csv(tmp_path / "v.qc.csv").set_index("scan_id")
    assert qc.loc["sub-good", "status"] in {"pass", "warn"}
    quarantine = pd.read_csv(tmp_path / "v.q.csv", dtype=str)
    assert sorted(quarantine["scan_id"]) == sorted(f"sub-f{n}" for n in range(len(FAULTS)))
    assert quarantine["reason"].str.len().between(10, 300).all()
    assert len((tmp_path / "v.q.csv").read_text().splitlines()) == 1 + len(FAULTS)
    assert "Traceback" not in run.stderr
    grown = dict(re.findall(r"grown kB: (\S+) (\d+)", run.stderr))
    assert list(grown)[-1] == "sub-good"
    assert len(grown) > 40
    assert sum(int(kb) for scan, kb in grown.items() if scan != "sub-good") < MAX_GROWN_MB * 1024
