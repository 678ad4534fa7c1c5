"""Generate brains that belong to no subject."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.application_options import (
    Ae,
    LdaeFolder,
    Out,
    SamplerName,
    Seed,
    Steps,
    open_application,
)


def generate(
    context: typer.Context,
    *,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 8,
    method: Annotated[
        Literal["denoiser", "prior"],
        typer.Option(
            help="`denoiser`: unconditional latent diffusion, y_sem plays no part. `prior`: the"
            " LDAE with y_sem drawn from a Gaussian fitted to the training scans."
        ),
    ] = "denoiser",
    semantics: Annotated[
        Path | None,
        typer.Option(
            help="semantics.zarr of this LDAE, for the prior; best that of the crossfit stage."
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="manifest.csv: which scans are training scans.")
    ] = None,
    ae: Ae = None,
    ldae: LdaeFolder = None,
    out: Out,
    steps: Steps = None,
    sampler: SamplerName = None,
    seed: Seed = 0,
) -> None:
    """Generate brains in MNI space; brain k of a seed is the same whatever the count.

    Example: pipeline generate --count 8 --seed 0 --out made
    """
    from schemas.errors import ParamsError

    if method == "prior" and (semantics is None or manifest is None):
        raise ParamsError("--method prior: give --semantics and --manifest, to fit the prior to")
    application = open_application(
        context.obj,
        "generate",
        [],
        ae=ae,
        ldae=ldae,
        out=out,
        steps=steps,
        sampler=sampler,
        variant="prior" if method == "prior" else "",
    )
    from pipeline.applications.generate import generate as apply
    from pipeline.applications.generate import prior_of

    prior = None
    if semantics is not None and manifest is not None and method == "prior":
        prior = prior_of(semantics, manifest, application.models)
    brains = apply(application.models, count=count, seed=seed, prior=prior)
    record = {"options": {"count": count, "seed": seed, "prior": prior and prior.digest}}
    path, is_new = application.writer.write_once(brains, stem=f"seed-{seed}", record=record)
    kept = "" if is_new else ", made already and kept"
    typer.echo(f"{path}: {count} brains, {brains.record['method']}{kept}")
