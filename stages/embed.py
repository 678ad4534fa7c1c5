"""Stage 7: the semantic code of every scan."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def embed(
    context: typer.Context,
    *,
    latents: Annotated[Path, typer.Option(help="latents.zarr of the encode stage.")],
    ldae: Annotated[Path, typer.Option(help="Model of train-ldae.")],
    out: Annotated[Path, typer.Option(help="semantics.zarr to write.")],
    volumes: Annotated[
        Path | None,
        typer.Option(help="volumes.zarr; read by the encoders `slices` and `published` alone."),
    ] = None,
) -> None:
    """Write y_sem of every scan.

    Example: pipeline embed --latents data/latents.zarr --ldae models/ldae --out data/semantics.zarr
    """
    settings: Settings = context.obj
    from pipeline.encoding.embed import embed_latents
    from pipeline.models.frozen import load_ldae
    from pipeline.stores.latents import open_latents
    from pipeline.stores.volumes import open_volumes

    device = settings.device()
    model = load_ldae(ldae, device=device)
    reads_volumes = model.net.encoder.reads == "volume"
    scans = embed_latents(
        open_latents(latents),
        model,
        out,
        settings.params().embed,
        device=device,
        volumes=open_volumes(volumes) if volumes and reads_volumes else None,
    )
    typer.echo(f"{out}: y_sem of {scans} scans")
