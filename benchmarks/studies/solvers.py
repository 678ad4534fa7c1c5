"""Few steps of each solver against DDIM-100 on a trained LDAE or LDM: there, back, and both.

python -m benchmarks.studies.solvers --ldae models/ldae --latents latents.zarr --out results.md

Inversion and sampling are judged by their distance from the same flow in many steps, the round trip
by what comes back of the latent. All judge the solver, not the model.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.framework.harness import machine
from pipeline.diffusion.samplers import Model, invert, sample
from pipeline.models.frozen import load_diffusion, load_ldae
from pipeline.models.ldae import LatentDiffusion
from pipeline.stores.latents import LatentStore, open_latents

WAYS = ["ddim:100", "ddim:20", "dpm_data:20", "dpm:20", "dpm:10", "dpm3:12"]


@torch.inference_mode()
def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--ldae", type=Path)
    which.add_argument("--ldm", type=Path, help="Stage 1 alone: without y_sem.")
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--scan", nargs="+", help="Scan ids; default: the last of the store.")
    parser.add_argument("--ways", nargs="+", default=WAYS, help="solver:steps")
    parser.add_argument("--reference-steps", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    store = open_latents(options.latents)
    ids = options.scan or store.attributes.scan_ids[-1:]
    z_0, model, diffusion = flow(options.ldae, options.ldm, store, ids)
    there, back = (partial(way, model, schedule=diffusion.schedule) for way in (invert, sample))

    many: dict[str, Any] = {"sampler": "dpm", "num_inference_steps": options.reference_steps}
    x_T = there(z_0, **many)
    z_T = back(x_T, **many)
    lines = [
        "| solver | evaluations each way | inversion | sampling | there and back |",
        "|---|---|---|---|---|",
    ]
    for way in options.ways:
        sampler, steps = way.split(":")
        how: dict[str, Any] = {"sampler": sampler, "num_inference_steps": int(steps)}
        noise = there(z_0, **how)
        errors = [(noise, x_T), (back(x_T, **how), z_T), (back(noise, **how), z_0)]
        shown = " | ".join(f"{relative(made, wanted):.2e}" for made, wanted in errors)
        lines.append(f"| {sampler} | {steps} | {shown} |")
        print(lines[-1], flush=True)
    title = "### Relative error of the flow's end against dpm with"
    about = f"{machine()}; {len(ids)} scans, latent {tuple(z_0.shape[1:])}"
    heading = f"{title} {options.reference_steps} steps, and of the latent that comes back"
    options.out.write_text(f"{about}\n\n{heading}\n\n" + "\n".join(lines) + "\n")


def flow(
    ldae: Path | None, ldm: Path | None, store: LatentStore, ids: list[str]
) -> tuple[Tensor, Model, LatentDiffusion]:
    """Return z_0 of scans, eps(x_t, t) given their y_sem, and the diffusion it belongs to."""
    mean, device = store.load(ids).mean.float(), torch.device("cpu")
    if ldae is not None:
        net = load_ldae(ldae, device=device).net
        z_0 = net.diffusion.standardise(mean)
        return z_0, net.model(net.embed(z_0)), net.diffusion
    assert ldm is not None
    diffusion = load_diffusion(ldm, device=device).diffusion
    return diffusion.standardise(mean), diffusion.eps, diffusion


def relative(made: Tensor, wanted: Tensor) -> float:
    """Return the norm of the difference over that of what is wanted."""
    return float((made - wanted).norm() / wanted.norm())


if __name__ == "__main__":
    main()
