"""Import the published LDAE: denoiser, gradient branch, semantic encoder, probe."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.common_options import Settings


def import_ldae(
    context: typer.Context,
    *,
    decoder: Annotated[
        Path,
        typer.Option(
            "--decoder",
            "--checkpoint",
            help="decoder.pth, or a Lightning checkpoint of either stage.",
        ),
    ],
    ae: Annotated[Path, typer.Option(help="Its autoencoder's folder, made by import-ae.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    encoder: Annotated[
        Path | None,
        typer.Option(help="encoder.pth; without it, the checkpoint's own, or stage 1 alone."),
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="disease_classifier.ckpt, CN against AD.")
    ] = None,
    mean: Annotated[Path | None, typer.Option(help="semantic_mean.pt, for the probe.")] = None,
    std: Annotated[Path | None, typer.Option(help="semantic_std.pt, for the probe.")] = None,
    weights: Annotated[
        Literal["ema", "raw"],
        typer.Option(help="Which weights of a Lightning checkpoint: averaged, or the last."),
    ] = "ema",
    stage_1: Annotated[
        bool, typer.Option("--stage-1", help="The denoiser alone, for train-ldae to start from.")
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Keep float16; default: as the files have it.")
    ] = False,
    scale_factor: Annotated[
        float, typer.Option(help="Factor between latents and z_0.", min=1e-6)
    ] = 0.873,
    heads: Annotated[int, typer.Option(help="Heads of the denoiser's attention.", min=1)] = 1,
    encoder_heads: Annotated[
        int, typer.Option(help="Heads of the semantic encoder's attention.", min=1)
    ] = 8,
    steps: Annotated[
        int,
        typer.Option(help="Sampler steps of the proof; 0 judges the autoencoder alone.", min=0),
    ] = 10,
) -> None:
    """Import the published LDAE, or its stage 1 alone (a model of train-ldm).

    Loading is strict, no code of a file is run, and the import is proven on the MNI template.

    Example: pipeline import-ldae --decoder decoder.pth --encoder encoder.pth --ae models/ae
    --probe disease_classifier.ckpt --mean semantic_mean.pt --std semantic_std.pt --out models/ldae
    """
    settings: Settings = context.obj
    from pipeline.models.conversion.published_import import ImportChoices, ImportFiles
    from pipeline.models.conversion.published_import import import_ldae as take_in

    imported = take_in(
        ImportFiles(decoder=decoder, encoder=encoder, probe=probe, mean=mean, std=std),
        out,
        ae=ae,
        device=settings.device(),
        choices=ImportChoices(
            weights=weights,
            stage_1=stage_1,
            half=half,
            scale=scale_factor,
            heads=heads,
            encoder_heads=encoder_heads,
            steps=steps,
        ),
    )
    for remark in imported.remarks:
        typer.echo(f"warning: {remark}")
    names = {
        "ae_ssim_brain": "autoencoder SSIM",
        f"{imported.kind}_ssim_brain": "through its codes",
        "x_T_mean": "x_T mean",
        "x_T_std": "std",
        "x_T_kurtosis": "kurtosis",
    }
    told = [f"{words} {imported.proof[k]:.3f}" for k, words in names.items() if k in imported.proof]
    typer.echo(f"{out}: {imported.kind}; MNI template: {', '.join(told)}")
    typer.echo("weights of others: non-profit research only; see its README.md")
