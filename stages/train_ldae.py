"""Stage 6: semantic encoder and gradient estimator (stage 2 of the method)."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings


def train_ldae(
    context: typer.Context,
    *,
    latents: Annotated[Path, typer.Option(help="latents.zarr of the encode stage.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    ldm: Annotated[
        Path | None,
        typer.Option(help="Model of train-ldm; without it, stage 1 is trained first beside --out."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="manifest.csv with the split; without it, subjects are split anew."),
    ] = None,
    volumes: Annotated[
        Path | None,
        typer.Option(help="volumes.zarr; read by the encoders `slices` and `published` alone."),
    ] = None,
    ae: Annotated[
        Path | None, typer.Option(help="Autoencoder folder, to make pictures of brains.")
    ] = None,
) -> None:
    """Train the latent diffusion autoencoder on latents.

    Example: pipeline train-ldae --latents data/latents.zarr --out models/ldae
    """
    settings: Settings = context.obj
    from pipeline.cohort.scan_splits import split_of_store
    from pipeline.models.frozen import load_autoencoder, load_diffusion
    from pipeline.stores.latents import open_latents
    from pipeline.stores.volumes import open_volumes
    from pipeline.training.latent_diffusion import train_denoiser
    from pipeline.training.latent_diffusion import train_ldae as train
    from stages.requested_settings import refuse_set

    if ldm is not None:
        reason = f"{ldm} is trained already; leave out --ldm to train stage 1 with it"
        refuse_set(settings, "train_ldm", reason)
    params, device = settings.params(), settings.device()
    store = open_latents(latents)
    scan_ids = split_of_store(store.attributes.scan_ids, manifest, params.cohort.split)
    autoencoder = load_autoencoder(ae, device=device) if ae else None
    if ldm is None:
        ldm = out.with_name(out.name + "-ldm")
        train_denoiser(
            store, scan_ids, params.train_ldm, ldm, device=device, autoencoder=autoencoder
        )
    reads_volumes = params.train_ldae.encoder.reads_volumes
    metrics = train(
        store,
        scan_ids,
        load_diffusion(ldm, device=device),
        params.train_ldae,
        out,
        device=device,
        volumes=open_volumes(volumes) if volumes and reads_volumes else None,
        autoencoder=autoencoder,
    )
    typer.echo(f"{out}: loss {metrics['loss']:.4f}, {metrics['seconds']:.0f} s of training")
