"""Stage 7: the semantic code of every scan."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.common_options import Settings

if TYPE_CHECKING:
    from pipeline.models.frozen import FrozenLdae

log = logging.getLogger(__name__)

OF_INPUT = ("autoencoder", "cohort", "preprocess", "encode")
"""Sections that concern --input alone."""


def embed(
    context: typer.Context,
    *,
    latents: Annotated[
        Path | None, typer.Option(help="latents.zarr of the encode stage, or --input.")
    ] = None,
    input_path: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="Instead of --latents: volumes.zarr, folder of NIfTI, BIDS root, or manifest;"
            " preprocessed and encoded first, beside --out.",
        ),
    ] = None,
    ldae: Annotated[
        Path | None,
        typer.Option(help="Model of train-ldae; default: models/ldae, else the bundled one."),
    ] = None,
    out: Annotated[Path, typer.Option(help="semantics.zarr to write.")],
    ae: Annotated[
        Path | None,
        typer.Option(
            help="Autoencoder folder, for --input; default: models/ae, else the bundled one."
        ),
    ] = None,
    volumes: Annotated[
        Path | None,
        typer.Option(
            help="volumes.zarr, with --latents; read by the encoders `slices` and `published`"
            " alone."
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(help="With --input: remake latents made otherwise; drop scans not in it."),
    ] = False,
) -> None:
    """Write y_sem of every scan: of a latent store, or of images with the bundled models.

    Example: pipeline embed --input nifti/ --out semantics.zarr
    """
    settings: Settings = context.obj
    from pipeline.stores.latents import open_latents
    from pipeline.stores.volumes import open_volumes
    from schemas.errors import ParamsError
    from stages.requested_settings import refuse_set

    if (latents is None) == (input_path is None):
        raise ParamsError("embed: give --latents STORE, or --input IMAGES, one of the two")
    if input_path is None and (ae is not None or replace):
        raise ParamsError(f"--ae and --replace go with --input; {latents} is encoded already")
    if input_path is not None and volumes is not None:
        raise ParamsError("--volumes goes with --latents; give a volume store as --input")
    store = open_latents(latents) if latents is not None else None
    from pipeline.encoding.embed import check_same_autoencoder, embed_latents
    from pipeline.models.bundled_ldae import find_ldae
    from pipeline.models.frozen import load_ldae

    folder, which = find_ldae(ldae)
    device = settings.device()
    model = load_ldae(folder, device=device)
    typer.echo(f"LDAE: {which}")
    if input_path is not None:
        latents, volumes = _encoded(settings, input_path, out, ae, model, replace=replace)
        store = open_latents(latents)
    else:
        for section in OF_INPUT:
            refuse_set(settings, section, f"{latents} is encoded already; leave it out")
    assert store is not None
    chosen = settings.params().embed
    check_same_autoencoder(store, model, any_contrast=chosen.any_contrast)
    reads_volumes = model.net.encoder.reads == "volume"
    scans = embed_latents(
        store,
        model,
        out,
        chosen,
        device=device,
        volumes=open_volumes(volumes) if volumes and reads_volumes else None,
    )
    typer.echo(f"{out}: y_sem of {scans} scans")


def _encoded(
    settings: Settings,
    input_path: Path,
    out: Path,
    ae: Path | None,
    ldae: "FrozenLdae",
    *,
    replace: bool,
) -> tuple[Path, Path]:
    """Return latents and volumes of an input, made beside `out` for the LDAE."""
    from pipeline.encoding.input_volumes import work_of
    from pipeline.encoding.run import check_out
    from pipeline.models.contrast import EMBED_ANY, ENCODE_ANY
    from pipeline.models.frozen import load_autoencoder, on_grid
    from pipeline.models.latent_fit import check_grid_fits
    from schemas.errors import ContractError
    from schemas.grid import Grid
    from stages.chosen_autoencoder import chosen_autoencoder
    from stages.encode_input import encode_input, input_grid, refuse_contrast

    chosen, which = chosen_autoencoder(settings, ae)
    autoencoder = load_autoencoder(chosen, device=settings.devices()[0])
    if autoencoder.digest != ldae.config["autoencoder_digest"]:
        raise ContractError(
            f"{ldae.path}: trained on latents of another autoencoder than {chosen}; give that one"
            " as --ae, or if it is the bundled one, --set autoencoder.source=bundled"
        )
    typer.echo(f"autoencoder: {which}")
    for config, name, parameter in (
        (autoencoder.config, f"the autoencoder {chosen}", ENCODE_ANY),
        (ldae.config, f"the LDAE {ldae.path}", EMBED_ANY),
    ):
        refuse_contrast(settings, input_path, config, model=name, allowed_by=parameter)
    own = Grid.model_validate(ldae.config["grid"])
    autoencoder = on_grid(autoencoder, own)
    asked = input_grid(settings, input_path, autoencoder)
    grid = asked.grid
    shape = on_grid(autoencoder, grid).net.latent_shape(grid.shape)
    try:
        check_grid_fits(ldae.config, grid, shape, source=str(input_path), model="the LDAE")
    except ContractError:
        if asked.firm:
            raise
        log.warning("%s: works on %s, not on preprocess.grid of params.yaml", ldae.path, own)
        grid = own
    latents = work_of(out) / "latents.zarr"
    check_out(latents, autoencoder, settings.params().encode, replace=replace)
    made = encode_input(
        settings, input_path, latents, autoencoder, out=out, grid=grid, replace=replace
    )
    return latents, made.volumes
