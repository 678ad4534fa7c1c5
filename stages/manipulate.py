"""Counterfactuals: a scan as it would be further along a probe's direction."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stages.application_options import (
    Ae,
    Detail,
    Inputs,
    Latents,
    LdaeFolder,
    ListFile,
    Out,
    Regions,
    SamplerName,
    Scans,
    Seed,
    SpaceOption,
    Steps,
    Volumes,
    chosen_ldae,
    open_application,
    refuse_unknown,
    scan_names,
)
from stages.regions import check_regions, measure_made

if TYPE_CHECKING:
    from pipeline.applications.generated_volumes import GeneratedVolumes
    from pipeline.applications.inputs import InputScan

log = logging.getLogger(__name__)

DEFAULT_SCALE = "-3:3:7"
FAR = 6.0
"""Scales beyond are farther than the fitting scans lie from each other, in standard deviations."""


def manipulate(
    context: typer.Context,
    *,
    direction: Annotated[
        str, typer.Option(help="What to move towards: diagnosis:AD, or a column, age_years.")
    ],
    directions: Annotated[
        Path | None,
        typer.Option(
            help="directions.json of the probe stage, of this very LDAE; default:"
            " reports/probe/directions.json, else what came with an imported LDAE."
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help="How far: a number, a list a,b,c or a range from:to:count; default -3:3:7. The"
            " unit is one standard deviation of y_sem along the direction over the scans that the"
            " probe was fitted on (train and val, never test)."
        ),
    ] = None,
    published_scale: Annotated[
        str | None,
        typer.Option(
            help="How far in the published unit, instead of --scale: s of"
            " n' = n + s·√dim·w/|w|; 2.5 in its tutorial."
        ),
    ] = None,
    along: Annotated[
        Literal["pattern", "weight"] | None,
        typer.Option(
            help="What moves: all numbers of y_sem as they go together in the probe's fitting scans"
            " (pattern, the default), or the probe's weight alone (weight, as published; always"
            " so with --published-scale)."
        ),
    ] = None,
    detail: Detail = False,
    regions: Regions = False,
    scans: Scans = None,
    inputs: Inputs = None,
    list_file: ListFile = None,
    latents: Latents = None,
    volumes: Volumes = None,
    space: SpaceOption = "mni",
    ae: Ae = None,
    ldae: LdaeFolder = None,
    out: Out,
    steps: Steps = None,
    sampler: SamplerName = None,
    seed: Seed = 0,  # noqa: ARG001 (common to the applications; nothing is drawn here)
) -> None:
    """Move scans along a direction in y_sem space and keep their x_T. Scale 0 is the scan's own.

    Example: pipeline manipulate --direction diagnosis:AD --scale -3:3:7 --scan sub-001
    --latents data/latents.zarr --volumes data/volumes.zarr --out made
    """
    check_regions(asked=regions, space=space)
    names = scan_names(scans, inputs, list_file)
    given = _given(scale, published_scale)
    variant = f"along-{re.sub('[^A-Za-z0-9]+', '-', direction)}"
    from pipeline.models.direction import find_direction
    from pipeline.models.model_folder import check_artefact

    refuse_unknown(names, latents)
    ldae = chosen_ldae(ldae)
    config = check_artefact(ldae, kind="ldae")
    found = find_direction(directions, ldae, direction, config=config)
    named = None if published_scale is None else given
    scales = given if named is None else tuple(found.from_published(s) for s in named)
    if named is not None or along == "weight":
        found = found.of_weights
    if not found.assumed_spread and max(map(abs, scales)) > FAR:
        log.warning(
            "scale %g: beyond %g standard deviations no scan was seen; such images mean nothing",
            max(scales, key=abs),
            FAR,
        )
    doubt = doubt_of_direction(directions, direction)
    if doubt is not None:
        log.warning("%s", doubt)
    application = open_application(
        context.obj,
        "manipulate",
        names,
        ae=ae,
        ldae=ldae,
        out=out,
        steps=steps,
        sampler=sampler,
        latents=latents,
        volumes=volumes,
        space=space,
        variant=f"{variant}_detail" if detail else variant,
    )
    from pipeline.applications.manipulate import manipulate as apply

    def manipulate_scan(scan: "InputScan") -> "GeneratedVolumes":
        z_0, volume = scan.z_0, scan.encoder_volume
        made = apply(application.models, z_0, found, scales, volume=volume, named=named)
        return replace(made, record=made.record | {"remarks": [doubt]}) if doubt else made

    application.run(
        names,
        manipulate_scan,
        detail=detail,
        scales=list(scales),
        direction={"name": direction, "sha256": found.digest},
    )
    if regions:
        measure_made(out)


def doubt_of_direction(directions: Path | None, direction: str) -> str | None:
    """Return why the direction may mean nothing, by the metrics beside its file, if they tell."""
    from pipeline.models.direction import OF_STUDY
    from pipeline.report.metrics_files import read_metrics
    from pipeline.report.sections.verdicts import doubt_of
    from schemas.results import ProbeMetrics

    metrics = (directions or OF_STUDY).with_name("metrics.json")
    return doubt_of(direction, read_metrics(metrics, ProbeMetrics))


def _given(scale: str | None, published_scale: str | None) -> tuple[float, ...]:
    """Return the numbers of whichever option was given."""
    from pipeline.applications.number_ranges import parse_numbers
    from schemas.errors import ParamsError

    if published_scale is None:
        return tuple(parse_numbers(scale or DEFAULT_SCALE, option="--scale"))
    if scale is not None:
        raise ParamsError("--scale and --published-scale: two units of one number; give one")
    return tuple(parse_numbers(published_scale, option="--published-scale"))
