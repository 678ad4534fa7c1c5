"""Rows of the paper preset that need a GPU: what an optimiser step of each stage reaches there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.framework.harness import at_hand, exhaust, race
from benchmarks.framework.registry import Measurement, Row, compare
from benchmarks.studies.autoencoder_step import build
from benchmarks.studies.train_steps import DECAY, LATENT, our_step, published_encoder, stage_2_step
from pipeline.models.ldae import build_ldae, encoder_config, unet_config
from pipeline.nets.denoiser import Denoiser, UnetConfig
from pipeline.stores.latents import Latents
from pipeline.training.step_module import ADAM_BETAS, moving_average
from schemas.params import Params
from stages.params_file import load_params
from stages.scaffold import preset_file

BATCH = 64
SIDE = 8192
"""Rows and columns of the matrices whose product gives the rate to compare with."""
COPIED = 2**30
"""Bytes of the copy that gives the bandwidth to compare with."""
FITS = 8
"""Scans whose 128 slices each the published encoder can take at once in 80 GB."""
SLICES = 128


def paper() -> Params:
    """Return the paper preset."""
    return load_params(preset_file("paper"), [])


def matmul_rate() -> float:
    """Return the bf16 rate (FLOP/s) of one large matrix product, the fastest of ten."""
    a = torch.randn(SIDE, SIDE, device=at_hand(), dtype=torch.bfloat16)
    (timed,) = race({"matmul": lambda: a @ a}, rounds=10, warmup=3)
    return 2 * SIDE**3 / min(timed.seconds)


def bandwidth() -> float:
    """Return the bytes a second, read and written, of one large copy: the fastest of ten."""
    source = torch.empty(COPIED, device=at_hand(), dtype=torch.uint8)
    target = torch.empty_like(source)
    (timed,) = race({"copy": lambda: target.copy_(source)}, rounds=10, warmup=3)
    return 2 * COPIED / min(timed.seconds)


def operations(work: Callable[[], object]) -> float:
    """Return the floating-point operations of convolutions, products and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_gb() -> dict[str, float]:
    """Return the most memory that tensors took on the GPU so far."""
    return {"peak memory, GB": torch.cuda.max_memory_allocated() / 1e9}


def measure_stage_1(folder: Path) -> Measurement:  # noqa: ARG001
    """Time a stage-1 step of the paper preset, data included, and count its operations."""
    unet, device = unet_config(paper().train_ldm.denoiser, in_channels=LATENT[0]), at_hand()
    with device:
        denoiser = Denoiser(UnetConfig(**unet))
    ids = [str(i) for i in range(4 * BATCH)]
    mean = torch.randn(len(ids), *LATENT).half()
    latents = Latents(ids, mean, torch.full_like(mean, -4)).to(device)
    generator = torch.Generator(device).manual_seed(0)

    def batch_of() -> tuple[torch.Tensor, torch.Tensor]:
        index = torch.randint(0, len(ids), (BATCH,))
        return latents.sample_posterior(index, generator=generator), torch.rand(
            BATCH, device=device
        ) * 999

    def loss(net: nn.Module) -> torch.Tensor:
        x, t = batch_of()
        return nn.functional.mse_loss(net(x, t).float(), x)

    step = our_step(denoiser, loss, device.type)
    step()
    timed = race({"step": step, "its batch alone": batch_of}, rounds=10)
    peak, flop, rate = peak_gb(), operations(step), matmul_rate()
    return Measurement(
        value=100 * flop / timed[0].median / rate,
        rounds={way.name: way.seconds for way in timed},
        numbers={
            "TFLOP a step": flop / 1e12,
            "measured matmul rate, TFLOP/s": rate / 1e12,
            "share of the step that makes the batch, %": 100 * timed[1].median / timed[0].median,
            "latents a second": BATCH / timed[0].median,
            **peak,
        },
        note=f"Batch {BATCH}, latents of {LATENT}, bf16 autocast.",
    )


def measure_optimiser(folder: Path) -> Measurement:  # noqa: ARG001
    """Time Adam and the moving average of the paper's denoiser, which only move memory."""
    unet = unet_config(paper().train_ldm.denoiser, in_channels=LATENT[0])
    with at_hand():
        net = Denoiser(UnetConfig(**unet))
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    optimizer = torch.optim.Adam(net.parameters(), betas=ADAM_BETAS, fused=True)
    average = AveragedModel(net, multi_avg_fn=moving_average(DECAY))

    def work() -> None:
        optimizer.step()
        average.update_parameters(net)

    average.update_parameters(net)  # the first only copies
    (timed,) = race({"Adam and average": work}, rounds=10)
    # Adam reads weight, gradient and two moments and writes three; the average reads two, writes 1.
    moved = 10 * 4 * sum(p.numel() for p in net.parameters())
    rate = bandwidth()
    return Measurement(
        value=100 * moved / timed.median / rate,
        rounds={timed.name: timed.seconds},
        numbers={"GB moved": moved / 1e9, "measured bandwidth, GB/s": rate / 1e9},
        note="Fewest bytes that fp32 weights, gradients, moments and average need.",
    )


def paper_ldae(params: Params) -> Any:
    """Return an untrained LDAE of the preset's sizes."""
    config: dict[str, Any] = {
        "unet": unet_config(params.train_ldm.denoiser, in_channels=LATENT[0]),
        "encoder": encoder_config(params.train_ldae.encoder, latent_shape=LATENT),
        "diffusion": {},
        "prediction": "epsilon",
        "statistics": [LATENT[0], 1, 1, 1],
    }
    with at_hand():
        return build_ldae(config)


def measure_stage_2(folder: Path) -> Measurement:  # noqa: ARG001
    """Time a stage-2 step of the paper preset, with the latent encoder and the published one."""
    params = paper()
    ldae, shape = paper_ldae(params), params.preprocess.grid.shape
    batch, sizes = params.train_ldae.batch_size, {"device": at_hand().type, "volume": shape}
    with at_hand():
        encoder = published_encoder(params.train_ldae.encoder.dim, slices=SLICES)
    # An optimiser step each: of the published way's time it is a hundredth.
    micro = stage_2_step(ldae, encoder, FITS, **sizes)
    ours, theirs = "latent", f"slices, micro-batches of {FITS}"
    step = stage_2_step(ldae, ldae.encoder, batch, **sizes)
    timed = race(
        {theirs: lambda: exhaust(micro() for _ in range(batch // FITS)), ours: step}, rounds=4
    )
    peak, flop, rate = peak_gb(), operations(step), matmul_rate()
    return compare(
        timed,
        ours=ours,
        against=theirs,
        note=f"{batch} scans a step, as in the preset, latents of {LATENT}; ConvNeXt-Small over"
        f" {SLICES} slices of {shape}, random weights, in as many parts as the GPU holds.",
        **{
            "latent, scans a second": batch / timed[1].median,
            "latent, share of the matmul rate, %": 100 * flop / timed[1].median / rate,
        },
        **{f"{name}, both at once": value for name, value in peak.items()},
    )


def measure_autoencoder(folder: Path) -> Measurement:  # noqa: ARG001
    """Time a whole optimiser step of the paper's autoencoder, adversary included."""
    params = paper()
    shape, ae = params.preprocess.grid.shape, params.train_ae
    scans = ae.batch_size // ae.accumulate
    train = ae.model_copy(update={"batch_size": scans, "accumulate": 1})
    module = build(train, shape).to(at_hand())
    module.on_fit_start()
    optimizer = torch.optim.Adam(module.parameter_groups(), lr=train.lr, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(at_hand().type, torch.bfloat16):
            loss = module.compute_losses(train.adversarial.warmup_steps)["loss"]
        torch.autograd.backward(loss)
        optimizer.step()
        module.ema.update_parameters(module.net)

    step()
    flop, rate = operations(step), matmul_rate()
    (timed,) = race({"step": step}, rounds=5)
    return Measurement(
        value=timed.median / scans,
        rounds={timed.name: timed.seconds},
        numbers={
            "share of the matmul rate, %": 100 * flop / timed.median / rate,
            **peak_gb(),
        },
        note=f"{scans} scans of {shape}, checkpointed, with discriminator, without LPIPS.",
    )


ROWS = [
    Row(
        name="paper-stage-1",
        what="stage-1 step of the paper preset, share of the bf16 matmul rate",
        against="one large matrix product",
        measure=measure_stage_1,
        target=40,
        unit="%",
        gpu_only=True,
    ),
    Row(
        name="paper-stage-2",
        what="stage-2 step of the paper preset, latent encoder",
        against=f"the published ConvNeXt over {SLICES} slices",
        measure=measure_stage_2,
        target=4,
        gpu_only=True,
    ),
    Row(
        name="paper-optimiser",
        what="Adam and moving average of the paper's denoiser, share of the memory bandwidth",
        against="one large copy",
        measure=measure_optimiser,
        target=None,
        unit="%",
        gpu_only=True,
    ),
    Row(
        name="paper-ae-step",
        what="step of the paper's autoencoder, a scan",
        against="–",
        measure=measure_autoencoder,
        target=None,
        unit="s",
        gpu_only=True,
    ),
]
