"""What the repository promises about itself."""

import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_product_files_stay_small():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("pipeline", "stages", "schemas")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_no_large_file_is_tracked():
    bundled = ROOT / "pipeline" / "weights"
    limits = {p: 25_000_000 if p.is_relative_to(bundled) else 1_000_000 for p in tracked()}
    assert not [p for p, limit in limits.items() if p.stat().st_size > limit]


def test_no_home_or_machine_path_is_written_down():
    marks = ["/" + name + "/" for name in ("work", "root", "home/")]
    texts = [p for p in tracked() if p.suffix in {".py", ".md", ".yaml", ".toml", ".lock", ""}]
    found = [
        f"{path.name}: {mark}"
        for path in texts
        for mark in marks
        if f" {mark}" in (text := path.read_text(errors="replace")) or f'"{mark}' in text
    ]
    assert not found


def test_torch_is_pinned_and_the_lock_names_no_gpu_package():
    lock = (ROOT / "requirements.lock").read_text().lower()
    assert "torch==2.13.0\n" in lock
    assert "nvidia" not in lock
    assert "+cpu" not in lock
