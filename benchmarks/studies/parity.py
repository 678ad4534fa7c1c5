"""Published choices against corrected ones, and two encoders, on a study's latents and sizes.

python -m benchmarks.studies.parity --study my-study --work work/parity --out docs/parity-demo.md

Runs the pipeline's own commands for each column. Networks have the sizes of the study's
params.yaml; the published 2.5D encoder is made narrow with --encoder: its real size is for a GPU.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PUBLISHED = {
    "train_ldm": {
        "posterior": "stored_draw",
        "scale": 0.8730,
        "prediction": "epsilon",
        "ema_per": "micro_batch",
        "accumulate": 2,
        "denoiser.pooling": "anisotropic",
    },
    "train_ldae": {"ema_per": "micro_batch", "accumulate": 2, "encoder.kind": "slices"},
    "evaluate": {"sampler": "ddim", "num_inference_steps": 100, "clip_x0": 1.0},
}
"""What params/parity.yaml switches on, without its sizes; its encoder in this project's form."""
NARROW = {"channels": [24, 48, 96, 192], "depths": [1, 1, 3, 1], "num_slices": 16}


def main() -> None:
    """Run both and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="A folder made by dvc repro.")
    parser.add_argument("--work", type=Path, required=True, help="Folder for models.")
    parser.add_argument("--encoder", type=json.loads, default=NARROW)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    published = {f"{s}.{k}": v for s, section in PUBLISHED.items() for k, v in section.items()}
    slices = {"kind": "slices"} | options.encoder
    encoder = {f"train_ldae.encoder.{k}": v for k, v in slices.items()}
    published |= encoder
    ways = {"published": published, "corrected": {}, "corrected, `slices`": encoder}
    columns = {
        name: run(options, options.work / name.split()[-1].strip("`"), changes)
        for name, changes in ways.items()
    }
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for name in columns["corrected"]:
        values = [f"{column.get(name, float('nan')):.4g}" for column in columns.values()]
        lines.append(f"| {name} | {' | '.join(values)} |")
    options.out.write_text("\n".join(lines) + "\n")
    print(options.out.read_text())


def run(options: argparse.Namespace, work: Path, changes: dict[str, Any]) -> dict[str, float]:
    """Train and judge one column; return its figures."""
    data = options.study / "data"
    stores = ["--latents", data / "latents.zarr", "--manifest", data / "cohort" / "manifest.csv"]
    volumes = ["--volumes", data / "volumes.zarr"]
    ldm, ldae, y_sem = work / "ldm", work / "ldae", work / "semantics.zarr"
    commands: list[list[Any]] = [
        ["train-ldm", *stores, "--out", ldm],
        ["train-ldae", *stores, *volumes, "--ldm", ldm, "--out", ldae],
        ["embed", *stores[:2], *volumes, "--ldae", ldae, "--out", y_sem],
        ["probe", *stores, "--semantics", y_sem, "--out", work / "probe"],
        ["evaluate", *stores, *volumes, "--ae", options.study / "models" / "ae",
         "--ldae", ldae, "--out", work / "evaluate"],
    ]  # fmt: skip
    common = ["--params", options.study / "params.yaml", "--device", "cpu"]
    sets = [*options.overrides, *(f"{key}={json.dumps(value)}" for key, value in changes.items())]
    common += [word for text in sets for word in ("--set", text)]
    if not any(key.startswith("train_ldm") for key in changes):
        # The study's own stage 1, which is not trained again.
        shutil.copytree(options.study / "models" / "ldm", ldm, dirs_exist_ok=True)
    gib = {}
    for name, *rest in commands:
        words = [sys.executable, "-m", "stages.cli", name, *rest, *common]
        with subprocess.Popen([str(word) for word in words]) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"pipeline {name} failed")
        gib[name] = usage.ru_maxrss / 2**20
    return figures(work) | {"training stage 2, peak GiB": gib["train-ldae"]}


def figures(work: Path) -> dict[str, float]:
    """Return the figures of one column, by what they are called in the table."""
    trained = json.loads((work / "ldae" / "metrics.json").read_text())
    judged = json.loads((work / "evaluate" / "metrics.json").read_text())
    ssim = {k: v["ssim_brain"]["value"] for k, v in judged["reconstruction"].items()}
    health = judged["inversion"]
    probes = json.loads((work / "probe" / "metrics.json").read_text())["cv"]
    probed = {
        f"probe, cross-validated: {target}, {measure}": found["y_sem"][measure]["value"]
        for target, found in probes.items()
        for measure in ("roc_auc", "mae")
        if measure in found.get("y_sem", {})
    }
    return {
        "inverted x_T, std (1)": health["std"],
        "inverted x_T, kurtosis (3)": health["kurtosis"],
        "SSIM in the brain, autoencoder alone": ssim["ae"],
        "SSIM, inverted x_T": ssim["ldae"],
        "SSIM, y_sem with random x_T": ssim["ldae_y_sem_only"],
        "stage-2 loss, another's y_sem over own": trained["val_loss_shuffled"]
        / trained["val_loss"],
        **probed,
        "training stage 2, s": trained["seconds"],
        "trained parameters, stage 2, M": trained["parameters"] / 1e6,
    }


if __name__ == "__main__":
    main()
