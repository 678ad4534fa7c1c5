"""Twenty steps of each solver against DDIM-100 on a trained LDAE, both directions.

python -m benchmarks.studies.solvers --ldae models/ldae --latents latents.zarr --out results.md

The error is relative to the same flow in many steps: it judges the solver, not the model.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.framework.harness import machine
from pipeline.diffusion.samplers import invert, sample
from pipeline.models.frozen import load_ldae
from pipeline.stores.latents import open_latents

WAYS = (("ddim", 100), ("ddim", 20), ("dpm_data", 20), ("dpm", 20), ("dpm", 10))


@torch.inference_mode()
def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ldae", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=1)
    parser.add_argument("--reference-steps", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    net = load_ldae(options.ldae, device=torch.device("cpu")).net
    store = open_latents(options.latents)
    ids = store.attributes.scan_ids[-options.scans :]
    z_0 = net.diffusion.standardise(store.load(ids).mean.float())
    model, schedule = net.model(net.embed(z_0)), net.diffusion.schedule

    def both(sampler: Any, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        settings: dict[str, Any] = {"sampler": sampler, "num_inference_steps": steps}
        return invert(model, z_0, schedule, **settings), sample(model, x_T, schedule, **settings)

    x_T = invert(model, z_0, schedule, sampler="dpm", num_inference_steps=options.reference_steps)
    reference = (
        x_T,
        sample(model, x_T, schedule, sampler="dpm", num_inference_steps=options.reference_steps),
    )
    lines = ["| solver | evaluations | inversion | sampling |", "|---|---|---|---|"]
    for sampler, steps in WAYS:
        made = both(sampler, steps)
        errors = [float((m - r).norm() / r.norm()) for m, r in zip(made, reference, strict=True)]
        lines.append(f"| {sampler} | {steps} | {errors[0]:.2e} | {errors[1]:.2e} |")
        print(lines[-1], flush=True)
    title = "### Relative error of the flow's end against dpm with"
    about = f"{machine()}; {len(ids)} scans, latent {tuple(z_0.shape[1:])}"
    heading = f"{title} {options.reference_steps} steps"
    options.out.write_text(f"{about}\n\n{heading}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
