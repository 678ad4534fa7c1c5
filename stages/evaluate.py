"""Stage 9: how well scans never trained on are reconstructed."""

from pathlib import Path
from typing import Annotated

import typer

from stages.settings import Settings


def evaluate(
    settings: Settings,
    *,
    manifest: Annotated[Path, typer.Option(help="manifest.csv with the split.")],
    volumes: Annotated[Path, typer.Option(help="volumes.zarr of the preprocess stage.")],
    latents: Annotated[Path, typer.Option(help="latents.zarr of the encode stage.")],
    ae: Annotated[Path, typer.Option(help="Autoencoder folder.")],
    ldae: Annotated[Path, typer.Option(help="Model of train-ldae.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics, per-scan table and examples.")],
) -> None:
    """Judge AE and LDAE reconstructions against the preprocessed scans.

    Example: pipeline evaluate --manifest data/cohort/manifest.csv --volumes data/volumes.zarr
    --latents data/latents.zarr --ae models/ae --ldae models/ldae --out reports/evaluate
    """
    from pipeline.cohort.manifest import read_manifest
    from pipeline.evaluation.headline import read_headline
    from pipeline.evaluation.reconstruction import Reconstructor, evaluate_reconstruction
    from pipeline.frozen import load_autoencoder, load_ldae
    from pipeline.precompute.embed import check_same_autoencoder
    from pipeline.stores.latents import open_latents
    from pipeline.stores.volumes import open_volumes
    from schemas.errors import ContractError

    device = settings.device()
    reconstructor = Reconstructor(
        volumes=open_volumes(volumes),
        latents=open_latents(latents),
        autoencoder=load_autoencoder(ae, device=device),
        ldae=load_ldae(ldae, device=device),
        params=settings.params().evaluate,
        device=device,
    )
    check_same_autoencoder(reconstructor.latents, reconstructor.ldae)
    if reconstructor.autoencoder.digest != reconstructor.latents.attributes.digests["autoencoder"]:
        raise ContractError(f"{latents}: encoded by another autoencoder than {ae}; run encode")
    evaluate_reconstruction(reconstructor, read_manifest(manifest), out)
    for line in read_headline(evaluate=out):
        typer.echo(line)
