"""Import an autoencoder that was trained elsewhere."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.common_options import Settings


def import_ae(
    context: typer.Context,
    *,
    checkpoint: Annotated[
        Path,
        typer.Argument(help=".pt, .pth, .ckpt, .safetensors, or the folder of a MONAI bundle."),
    ],
    out: Annotated[Path, typer.Option(help="Autoencoder folder to write.")],
    config: Annotated[
        Path | None,
        typer.Option(help="JSON with the arguments of AutoencoderKL; default: read off shapes."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Which autoencoder, where a file holds several.")
    ] = None,
    projection: Annotated[
        Literal["auto", "apply", "ignore"],
        typer.Option(help="proj_attn of monai-generative, which its forward pass never used."),
    ] = "auto",
    norm_groups: Annotated[int | None, typer.Option(help="Groups of GroupNorm.", min=1)] = None,
    zooms: Annotated[
        float | None, typer.Option(help="Voxel size (mm) it was trained on.", min=0.1)
    ] = None,
    shape: Annotated[
        tuple[int, int, int] | None, typer.Option(help="Voxels along x, y, z of that grid.")
    ] = None,
    boxes: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            help="Encode and decode in overlapping boxes of so many voxels: less memory, and an"
            " error that the import states. Default: whole volumes."
        ),
    ] = None,
    intensity: Annotated[
        Literal["minmax"] | None,
        typer.Option(
            help="Intensities were scaled from lowest to highest (published LDAE, BrLP); kept, and"
            " preprocessing for it does the same."
        ),
    ] = None,
) -> None:
    """Import an AutoencoderKL: old monai-generative, a MONAI bundle, MAISI, or one of ours.

    Loading is strict, no code of the file is run, and the import is proven on the MNI template.

    Example: pipeline import-ae autoencoder.pth --out models/ae --zooms 1.5
    """
    settings: Settings = context.obj
    import torch

    from pipeline.encoding.device_settings import scan_bytes
    from pipeline.models.conversion.monai_import import import_autoencoder
    from pipeline.models.frozen import load_autoencoder

    imported = import_autoencoder(
        checkpoint,
        out,
        device=settings.device(),
        config=config,
        prefix=prefix,
        projection=projection,
        norm_groups=norm_groups,
        zooms=zooms,
        shape=shape,
        boxes=boxes,
        intensity=None if intensity is None else {"intensity": intensity},
    )
    for remark in imported.remarks:
        typer.echo(remark)
    proof = imported.proof
    typer.echo(
        f"{out}: MNI template comes back with SSIM {proof['ssim_brain']:.4f}, MSE"
        f" {proof['mse_brain']:.6f} inside the brain (whole volume {proof['ssim_whole']:.4f},"
        f" {proof['mse_whole']:.6f})"
    )
    frozen = load_autoencoder(out, device=torch.device("cpu"))
    needed = scan_bytes(frozen, frozen.grid.shape) / 1e9
    way = "in boxes" if boxes else "whole (--boxes X Y Z takes less)"
    typer.echo(f"{out}: encodes a scan {way} in about {needed:.1f} GB")
