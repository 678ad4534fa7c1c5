"""Take in an autoencoder that someone else trained."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.settings import Settings


def import_ae(
    settings: Settings,
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
) -> None:
    """Import an AutoencoderKL: old monai-generative, a MONAI bundle, or one of this pipeline.

    Loading is strict, no code of the file is run, and the import is proven on the MNI template.

    Example: pipeline import-ae autoencoder.pth --out models/ae --zooms 1.5
    """
    from pipeline.foreign.importing import import_autoencoder

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
    )
    for remark in imported.remarks:
        typer.echo(remark)
    proof = imported.proof
    typer.echo(
        f"{out}: MNI template comes back with SSIM {proof['ssim_brain']:.4f}, MSE"
        f" {proof['mse_brain']:.6f} inside the brain (whole volume {proof['ssim_whole']:.4f},"
        f" {proof['mse_whole']:.6f})"
    )
