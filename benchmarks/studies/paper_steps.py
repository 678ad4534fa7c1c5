"""One optimiser step of each stage at the paper preset: time, and the most memory ever held.

python -m benchmarks.studies.paper_steps --stage 1 --out results.md

One process a stage: its peak memory only grows.

The step is Lightning's own: forward, backward, clipping, Adam, moving average, and, with
--checkpoint, the checkpoint that a run would write after it.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.framework.harness import machine
from pipeline.models.ldae import build_diffusion, build_ldae, encoder_config, unet_config
from pipeline.stores.latents import Latents
from pipeline.training.latent_batches import LatentData
from pipeline.training.latent_modules import DenoiserModule, LatentModule, SemanticModule
from pipeline.training.lightning_run import run_training
from pipeline.training.plan import Plan
from schemas.params import Params
from stages.params_file import load_params

LATENT = (3, 16, 20, 16)
PAPER = Path(__file__).parents[2] / "params" / "paper.yaml"


def module_of(stage: int, params: Params) -> LatentModule:
    """Return the Lightning module of a stage on random latents."""
    torch.manual_seed(0)
    ids = [f"sub-{i}" for i in range(4)]
    latents = Latents(ids, torch.randn(4, *LATENT).half(), torch.full((4, *LATENT), -4.0).half())
    splits = {"train": latents, "val": Latents([], latents.mean[:0], latents.logvar[:0])}
    config = {
        "unet": unet_config(params.train_ldm.denoiser, in_channels=LATENT[0]),
        "diffusion": {},
        "prediction": "epsilon",
        "statistics": [LATENT[0], 1, 1, 1],
    }
    if stage == 1:
        diffusion = build_diffusion(config)
        return DenoiserModule(
            diffusion.denoiser, params.train_ldm, LatentData(diffusion, splits, "sample")
        )
    config["encoder"] = encoder_config(params.train_ldae.encoder, latent_shape=LATENT)
    ldae = build_ldae(config)
    ldae.diffusion.requires_grad_(False).eval()
    net = torch.nn.ModuleDict({"encoder": ldae.encoder, "estimator": ldae.estimator})
    return SemanticModule(net, params.train_ldae, LatentData(ldae.diffusion, splits, "sample"))


def main() -> None:
    """Do one step and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", type=int, choices=(1, 2), required=True)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    section = "train_ldm" if options.stage == 1 else "train_ldae"
    changes = [f"{section}.steps=1", f"{section}.batch_size={options.batch_size}"]
    module = module_of(options.stage, load_params(PAPER, [*changes, *options.overrides]))
    trained = sum(p.numel() for p in module.net.parameters())
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run_training(
            module, Path(folder) / "model", plan=Plan("x", {}, {}), device=torch.device("cpu")
        )
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line = (
        f"| {options.stage} | {options.batch_size} | {trained / 1e6:.1f} M | {seconds:.0f}"
        f" | {time.process_time():.0f} | {peak:.1f} |"
    )
    if not options.out.exists():
        options.out.write_text(
            f"{machine()}; paper preset, one optimiser step, moving average and checkpoint\n\n"
            "| stage | batch | trained | wall s | CPU s with building | peak GiB |\n"
            "|---|---|---|---|---|---|\n"
        )
    with options.out.open("a") as file:
        file.write(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
