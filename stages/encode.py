"""Stage 4: every volume through the frozen autoencoder, once."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def encode(
    context: typer.Context,
    *,
    input_path: Annotated[
        Path,
        typer.Option("--input", help="volumes.zarr, folder of NIfTI, BIDS root, or manifest."),
    ],
    out: Annotated[Path, typer.Option(help="latents.zarr to write.")],
    ae: Annotated[
        Path | None,
        typer.Option(help="Autoencoder folder; default: models/ae, else the bundled one."),
    ] = None,
    replace: Annotated[
        bool, typer.Option(help="Remake a store made otherwise; drop scans not in the input.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 1 if any scan is refused.")] = False,
) -> None:
    """Encode scans into a latent store; images are preprocessed first, finished work is kept.

    Example: pipeline encode --input nifti/ --out latents.zarr
    """
    settings: Settings = context.obj
    from pipeline.sources.kind import detect_source

    detect_source(input_path)  # refuses what is no input before anything heavy is imported
    from pipeline.encoding.run import check_out
    from pipeline.models.contrast import ENCODE_ANY
    from pipeline.models.frozen import load_autoencoder
    from stages.chosen_autoencoder import chosen_autoencoder
    from stages.encode_input import encode_input, input_grid, refuse_contrast, stored_grid

    folder, which = chosen_autoencoder(settings, ae, grid=stored_grid(input_path))
    autoencoder = load_autoencoder(folder, device=settings.devices()[0], at_use=True)
    check_out(out, autoencoder, settings.params().encode, replace=replace)
    typer.echo(f"autoencoder: {which}")
    refuse_contrast(
        settings,
        input_path,
        autoencoder.config,
        model=f"the autoencoder {folder}",
        allowed_by=ENCODE_ANY,
    )
    made = encode_input(
        settings,
        input_path,
        out,
        autoencoder,
        out=out,
        grid=input_grid(settings, input_path, autoencoder).grid,
        replace=replace,
    )
    if strict and made.quarantined:
        raise typer.Exit(1)
