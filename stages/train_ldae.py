"""Stage 6: semantic encoder and gradient estimator (stage 2 of the method)."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common_options import Settings

WHERE = ("train_ldae.source", "train_ldae.path")
"""Parameters that say where the LDAE comes from."""


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
        typer.Option(
            help="volumes.zarr; read by the encoders `slices` and `published`, and to fit the"
            " tissue net for latents of another autoencoder than the bundled one."
        ),
    ] = None,
    ae: Annotated[
        Path | None, typer.Option(help="Autoencoder folder, to make pictures of brains.")
    ] = None,
) -> None:
    """Train the latent diffusion autoencoder on latents, or take a finished one.

    Example: pipeline train-ldae --latents data/latents.zarr --out models/ldae
    """
    settings: Settings = context.obj
    from pipeline.stores.latents import open_latents
    from schemas.errors import ParamsError
    from stages.requested_settings import refuse_set

    params = settings.params()
    chosen = params.train_ldae
    if chosen.source != "train":
        reason = f"train_ldae.source is {chosen.source}, so nothing is trained; add --set"
        for section in ("train_ldm", "train_ldae"):
            refuse_set(settings, section, f"{reason} train_ldae.source=train", but=WHERE)
        store = open_latents(latents)
        from pipeline.models.bundled_ldae import adopt_ldae, bundled_ldae

        source = chosen.path or bundled_ldae()
        adopt_ldae(source, out, latents=store)
        typer.echo(f"{out}: the {chosen.source} LDAE of {source}; nothing was trained")
        return

    if ldm is not None:
        reason = f"{ldm} is trained already; leave out --ldm to train stage 1 with it"
        refuse_set(settings, "train_ldm", reason)
    start_1, start = params.train_ldm.start_from, chosen.start_from
    if start not in (None, "auto") and ldm is None and start_1 is None:
        raise ParamsError(
            "train_ldae.start_from: stage 1 must start from it too; set train_ldm.start_from to the"
            " same, or give --ldm"
        )
    store = open_latents(latents)
    from pipeline.cohort.scan_splits import split_of_store
    from pipeline.models.frozen import load_autoencoder, load_diffusion
    from pipeline.models.starting_point import start_of_stage_1, start_of_stage_2, with_its_steps
    from pipeline.stores.volumes import open_volumes
    from pipeline.training.latent_diffusion import train_denoiser
    from pipeline.training.latent_diffusion import train_ldae as train

    device = settings.device()
    scan_ids = split_of_store(store.attributes.scan_ids, manifest, params.cohort.split)
    autoencoder = load_autoencoder(ae, device=device, at_use=True) if ae else None
    if ldm is None:
        ldm = out.with_name(out.name + "-ldm")
        first = start_of_stage_1(start_1, params.train_ldm, store)
        train_denoiser(
            store,
            scan_ids,
            with_its_steps(params.train_ldm, first),
            ldm,
            device=device,
            autoencoder=autoencoder,
            start=first,
        )
    stage_1 = load_diffusion(ldm, device=device)
    second = start_of_stage_2(start, chosen, store, stage_1=stage_1)
    metrics = train(
        store,
        scan_ids,
        stage_1,
        with_its_steps(chosen, second),
        out,
        device=device,
        volumes=open_volumes(volumes) if volumes else None,
        autoencoder=autoencoder,
        start=second,
    )
    typer.echo(f"{out}: loss {metrics['loss']:.4f}, {metrics['seconds']:.0f} s of training")
