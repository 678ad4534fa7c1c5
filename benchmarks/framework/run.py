"""Run rows one after the other, each in a fresh process, and keep what came out as JSON."""

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.framework.harness import machine
from benchmarks.framework.registry import Row, all_rows
from pipeline.runtime.devices import available_cpus, native_bf16
from pipeline.runtime.files import write_json
from schemas.errors import ParamsError

log = logging.getLogger("pipeline.bench")
LIMIT_S = 900
NO_GPU = "not measured: no GPU at hand"


def chosen_rows(what: Sequence[str]) -> list[Row]:
    """Return the rows of these names, in that order; none named is all that this machine can.

    The longest are left out as well: they are measured when named.

    Raises
    ------
    ParamsError
        If there is no such row.
    """
    rows = {row.name: row for row in all_rows()}
    unknown = set(what) - set(rows)
    if unknown:
        raise ParamsError(f"--what {min(unknown)}: expected some of {', '.join(rows)}")
    gpu = torch.cuda.is_available()
    possible = [row for row in rows.values() if not row.asked and (gpu or not row.gpu_only)]
    return [rows[name] for name in what] or possible


def kind_of_machine() -> str:
    """Return a name for the file of results: the GPU's, or architecture, cores and arithmetic."""
    if torch.cuda.is_available():
        return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    name = f"cpu-{os.uname().machine.replace('_', '-')}-{available_cpus()}-cores"
    return name if native_bf16(torch.device("cpu")) else f"{name}-no-bf16"


def run_rows(rows: Sequence[Row], out: Path, *, note: str = "") -> dict[str, Any]:
    """Measure and write `<out>/<kind of machine>.json` after each row; others' results stay."""
    path = out / f"{kind_of_machine()}.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    results["machine"] = f"{machine()}. {note}".strip()
    for number, row in enumerate(rows, start=1):
        log.info("%d of %d, %s (about %.0f s)", number, len(rows), row.name, row.seconds)
        results["rows"][row.name] = _measure(row)
        write_json(path, results)
    return results


def _measure(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "what": row.what,
        "against": row.against,
        "unit": row.unit,
        "target": row.target,
    }
    if row.gpu_only and not torch.cuda.is_available():
        return facts | {"status": NO_GPU}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result = Path(folder) / "result.json"
        module = row.measure.__module__
        command = [sys.executable, "-m", "benchmarks.framework.row", module, row.name, str(result)]
        try:
            done = subprocess.run(
                command, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return facts | {"status": f"not measured: more than {LIMIT_S} s"}
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return facts | {"status": f"failed: {last}"}
        measured: dict[str, Any] = json.loads(result.read_text())
    met = row.met(measured["value"])
    took = time.monotonic() - started
    return facts | measured | {"status": "measured", "met": met, "took_s": round(took, 1)}
