"""Stage 5: latent diffusion (stage 1 of the method)."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def train_ldm(
    context: typer.Context,
    *,
    latents: Annotated[Path, typer.Option(help="latents.zarr of the encode stage.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="manifest.csv with the split; without it, subjects are split anew."),
    ] = None,
    ae: Annotated[
        Path | None, typer.Option(help="Autoencoder folder, to make pictures of brains.")
    ] = None,
) -> None:
    """Train the unconditional denoiser on latents, or take that of a finished LDAE.

    Example: pipeline train-ldm --latents data/latents.zarr --manifest data/cohort/manifest.csv
    --out models/ldm
    """
    settings: Settings = context.obj
    from pipeline.stores.latents import open_latents
    from stages.requested_settings import refuse_set

    params = settings.params()
    chosen = params.train_ldae
    if chosen.source != "train":
        reason = f"train_ldae.source is {chosen.source}, so nothing is trained; add --set"
        refuse_set(settings, "train_ldm", f"{reason} train_ldae.source=train")
        store = open_latents(latents)
        from pipeline.models.bundled_ldae import adopt_stage_1, bundled_ldae

        source = chosen.path or bundled_ldae()
        adopt_stage_1(source, out, latents=store)
        typer.echo(f"{out}: stage 1 of the {chosen.source} LDAE of {source}; nothing was trained")
        return

    store = open_latents(latents)
    from pipeline.cohort.scan_splits import split_of_store
    from pipeline.models.frozen import load_autoencoder
    from pipeline.models.starting_point import start_of_stage_1, with_its_steps
    from pipeline.training.latent_diffusion import train_denoiser

    scan_ids = split_of_store(store.attributes.scan_ids, manifest, params.cohort.split)
    device = settings.device()
    start = start_of_stage_1(params.train_ldm.start_from, params.train_ldm, store)
    metrics = train_denoiser(
        store,
        scan_ids,
        with_its_steps(params.train_ldm, start),
        out,
        device=device,
        autoencoder=load_autoencoder(ae, device=device, at_use=True) if ae else None,
        start=start,
    )
    typer.echo(f"{out}: loss {metrics['loss']:.4f}, {metrics['seconds']:.0f} s of training")
