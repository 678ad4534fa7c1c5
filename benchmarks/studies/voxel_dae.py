"""Whole reconstruction of a scan: LDAE against a voxel-space diffusion autoencoder, side by side.

Both have the same grid, sampler and number of steps, and random weights, which change no time.
Reconstruction is everything from volume to volume: encode, y_sem, inversion, sampling, decode.

python -m benchmarks.studies.voxel_dae --preset params/phantom.yaml --out voxel_dae.md
"""

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.framework.harness import at_hand, machine, race, table
from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.models.frozen import FrozenAutoencoder, FrozenLdae, voxels_as_latents
from pipeline.models.inference import LdaeInference
from pipeline.models.ldae import build_ldae, encoder_config, unet_config
from pipeline.models.reconstruction_speed import reconstruct
from pipeline.nets.autoencoder import Autoencoder
from schemas.diffusion import DenoiserParams, SemanticEncoderParams
from schemas.params import Params
from stages.params_file import load_params


def networks(
    shape: tuple[int, ...], denoiser: DenoiserParams, encoder: SemanticEncoderParams
) -> FrozenLdae:
    """Return an untrained diffusion autoencoder on (channel, x, y, z)."""
    config: dict[str, Any] = {
        "unet": unet_config(denoiser, in_channels=shape[0]),
        "encoder": encoder_config(encoder, latent_shape=shape),
        "diffusion": {},
        "prediction": "epsilon",
        "statistics": [shape[0], 1, 1, 1],
    }
    with at_hand():
        return FrozenLdae(frozen(build_ldae(config)), "", config, Path())


def frozen(net: Any) -> Any:
    """Return a network as it is used: no gradients, evaluation mode, on the device."""
    return net.requires_grad_(False).eval().to(at_hand())


SAME = "voxel DAE, the LDAE's denoiser"
NARROW = "voxel DAE, as `train-voxel-dae` makes it"
OURS = "LDAE"


def machines(
    params: Params, steps: int, *, only: Sequence[str] = (SAME, NARROW, OURS), batch_size: int = 1
) -> dict[str, LdaeInference]:
    """Return the LDAE, and voxel-space rivals of its own size and of the baseline's."""
    torch.manual_seed(0)
    ae, voxel, shape = params.train_ae, params.evaluate.voxel_dae, params.preprocess.grid.shape
    grid = mni_grid(params.preprocess.grid)
    voxels = voxels_as_latents(grid, Path())

    def of_voxels(denoiser: DenoiserParams) -> tuple[FrozenAutoencoder, FrozenLdae]:
        return voxels, networks((1, *shape), denoiser, voxel.train_ldae.encoder)

    def of_latents() -> tuple[FrozenAutoencoder, FrozenLdae]:
        autoencoder = frozen(
            Autoencoder(
                channels=ae.channels,
                latent_channels=ae.latent_channels,
                num_res_blocks=ae.num_res_blocks,
                norm_groups=ae.norm_groups,
                patch=ae.patch,
            )
        )
        latent_shape = autoencoder.latent_shape(shape)
        ldae = networks(latent_shape, params.train_ldm.denoiser, params.train_ldae.encoder)
        return FrozenAutoencoder(lambda: autoencoder, "", grid, {}, Path()), ldae

    ways = {
        SAME: lambda: of_voxels(params.train_ldm.denoiser),
        NARROW: lambda: of_voxels(voxel.train_ldm.denoiser),
        OURS: of_latents,
    }
    made = {name: ways[name]() for name in only}
    return {
        name: LdaeInference(
            autoencoder=autoencoder,
            ldae=ldae,
            device=at_hand(),
            sampler=params.evaluate.sampler,
            num_inference_steps=steps,
            batch_size=batch_size,
        )
        for name, (autoencoder, ldae) in made.items()
    }


def size_of(models: LdaeInference) -> str:
    """Return parameters in millions."""
    nets: list[nn.Module] = [models.ldae.net, models.autoencoder.net]
    return f"{sum(p.numel() for net in nets for p in net.parameters()) / 1e6:.1f} M"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    params = load_params(options.preset, [])
    shape = params.preprocess.grid.shape
    volume = torch.rand(1, *shape)
    ways = machines(params, options.steps)
    timed = race(
        {name: lambda m=models: reconstruct(m, volume) for name, models in ways.items()},
        rounds=options.rounds,
        warmup=0 if options.rounds == 1 else 1,
    )
    sizes = "\n".join(f"- {name}: {size_of(models)} parameters" for name, models in ways.items())
    ratios = "\n".join(
        f"- LDAE against {way.name}: {way.median / timed[-1].median:.1f}×" for way in timed[:-1]
    )
    title = f"Whole reconstruction of one scan, grid {tuple(shape)}, {options.steps} steps each way"
    text = f"# Voxel-space diffusion autoencoder\n\n{machine()}, {torch.get_num_threads()} threads"
    text += f" ({platform.system()}). The machine may have been shared: trust ratios.\n\n"
    text += f"{table(title, timed)}\n{ratios}\n\n{sizes}\n"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
