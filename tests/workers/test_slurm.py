"""SLURM: the description, the job script, and preprocessing through a stand-in for sbatch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.workers.slurm import read_slurm, slurm_cluster
from schemas.cluster import SlurmConfig
from schemas.errors import ParamsError
from tests.support.paths import ROOT

SCRIPT = """
import sys
from pathlib import Path
from pipeline.workers.slurm import read_slurm, slurm_cluster
if __name__ == "__main__":
    with slurm_cluster(read_slurm(Path(sys.argv[1]))) as cluster:
        print(cluster.job_script())
"""
CONFIG = """
jobs: 2
processes: 3
memory_per_process: 2GiB
walltime: "01:30:00"
partition: long
account: brain
prologue: ["module load python"]
directives: ["--exclusive"]
"""


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """dask-jobqueue writes a config file where it is imported: not into the home folder."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"DASK_CONFIG": str(tmp_path / "dask"), "PYTHONPATH": paths} | more


def test_example_is_the_default() -> None:
    assert read_slurm(ROOT / "docs" / "slurm.yaml") == SlurmConfig()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job: 3", "job: .*known keys: jobs, processes"),
        ("jobs: none", "jobs: "),
        ("- a", "expected keys with values"),
        ("a: [", "no valid YAML"),
    ],
)
def test_faults_of_the_description_are_one_line(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "slurm.yaml").write_text(text)
    with pytest.raises(ParamsError, match=expected) as raised:
        read_slurm(tmp_path / "slurm.yaml")
    assert "\n" not in str(raised.value)
    with pytest.raises(ParamsError, match="cannot be read"):
        read_slurm(tmp_path / "none.yaml")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ParamsError, match=r"pip install 'ldae-pipeline\[slurm\]'"):
        slurm_cluster(SlurmConfig())


@pytest.mark.slow
def test_job_script(tmp_path: Path) -> None:
    (tmp_path / "slurm.yaml").write_text(CONFIG)
    (tmp_path / "script.py").write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, "script.py", "slurm.yaml"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    script = result.stdout
    for line in (
        "#SBATCH -p long",
        "#SBATCH -A brain",
        "#SBATCH --cpus-per-task=3",
        "#SBATCH --mem=6G",
        "#SBATCH -t 01:30:00",
        "#SBATCH --exclusive",
        "module load python",
        "export OMP_NUM_THREADS=1",
    ):
        assert line in script.splitlines(), line
    assert re.search(r"--nworkers 3\b", script)
    assert re.search(r"--nthreads 1\b", script)
    assert re.search(r"--memory-limit 2\.00GiB", script)


FAKE_SBATCH = """#!/bin/sh
# Run the job at once, as SLURM would on a node of its own.
cp "$1" "{folder}/job.sh"
sh "{folder}/job.sh" >"{folder}/job.log" 2>&1 &
echo "$!" >"{folder}/pid"
echo "Submitted batch job 7"
"""


@pytest.mark.slow
def test_preprocess_through_submitted_jobs(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for i in range(6):
        (scans / f"s{i}.nii").write_text(f"no image {i}")
    for name, text in (("sbatch", FAKE_SBATCH.format(folder=tmp_path)), ("scancel", "#!/bin/sh\n")):
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(text)
        tool.chmod(0o755)
    (tmp_path / "slurm.yaml").write_text("{jobs: 1, processes: 2, memory_per_process: 1GiB}")
    env = environment(tmp_path, PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    cli = [sys.executable, "-m", "stages.cli"]
    collect = [*cli, "cohort", "--input", "scans", "--out", "c"]
    subprocess.run(collect, cwd=tmp_path, env=env, check=True)
    command = [*cli, "preprocess", "--manifest", "c/manifest.csv", "--out", "v.zarr", "--qc"]
    command += ["qc.csv", "--quarantine", "q.csv", "--scheduler", "slurm.yaml"]
    result = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    # Every scan is refused with its reason, by the workers of the job.
    assert "no scan passed" in result.stderr, result.stderr
    assert (tmp_path / "q.csv").read_text().count("too few for a NIfTI header") == 6
    assert "nworkers 2" in (tmp_path / "job.sh").read_text()
