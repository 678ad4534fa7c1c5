"""The next visit of a person, with how sure it is."""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stages.application_options import (
    INPUT_PANEL,
    Ae,
    Detail,
    Latents,
    LdaeFolder,
    Out,
    Regions,
    SamplerName,
    Seed,
    SpaceOption,
    Steps,
    Volumes,
    chosen_ldae,
    open_application,
)
from stages.manipulate import doubt_of_direction
from stages.regions import check_regions, measure_made

if TYPE_CHECKING:
    from pipeline.measurement.course import Course
    from pipeline.models.direction import Direction

log = logging.getLogger(__name__)


def forecast(
    context: typer.Context,
    *,
    months: Annotated[
        str, typer.Option(help="Months after the last visit: a number, a list or a range.")
    ],
    semantics: Annotated[
        Path,
        typer.Option(
            help="semantics.zarr of this LDAE: y_sem of the people to learn from; best that of the"
            " crossfit stage."
        ),
    ],
    manifest: Annotated[
        Path, typer.Option(help="manifest.csv: people, splits and months_from_first.")
    ],
    scans: Annotated[
        list[str] | None,
        typer.Option(
            "--scan",
            help="A visit of the person, an id in --latents; repeat it for several, in order.",
            rich_help_panel=INPUT_PANEL,
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--input", help="One visit as an image file.", rich_help_panel=INPUT_PANEL),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="All dated visits of this person.", rich_help_panel=INPUT_PANEL),
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws that mean and spread are taken over.")] = 16,
    keep_draws: Annotated[bool, typer.Option(help="Write every draw too.")] = False,
    slope: Annotated[
        Literal["auto", "own", "population"],
        typer.Option(
            help="`population`: the mean change of people seen twice, from the last visit. `auto`,"
            " `own`: with several visits their own, drawn towards it; `own` needs two."
        ),
    ] = "auto",
    direction: Annotated[
        str | None,
        typer.Option(help="Move along this direction of the probe alone, as diagnosis:AD."),
    ] = None,
    directions: Annotated[
        Path | None, typer.Option(help="directions.json of the probe stage, for --direction.")
    ] = None,
    detail: Detail = False,
    regions: Regions = False,
    latents: Latents = None,
    volumes: Volumes = None,
    space: SpaceOption = "mni",
    ae: Ae = None,
    ldae: LdaeFolder = None,
    out: Out,
    steps: Steps = None,
    sampler: SamplerName = None,
    seed: Seed = 0,
) -> None:
    """Forecast the next visit: mean of many draws, their spread, a 90 % interval.

    Example: pipeline forecast --scan sub-001_ses-M00 --scan sub-001_ses-M12 --months 12
    --semantics data/semantics.zarr --manifest data/cohort/manifest.csv
    --latents data/latents.zarr --out made
    """
    check_regions(asked=regions, space=space)
    names = _names(scans, image, subject, manifest, latents)
    after = _months_after(months)
    from pipeline.applications.forecast_visits import (
        beyond_seen,
        course_of,
        intervals_of,
        ordered_visits,
    )

    visits = ordered_visits(names, manifest, slope)
    if slope == "population":
        names, visits = names[-1:], [0.0]
    ldae = chosen_ldae(ldae)
    along = None if direction is None else _direction(directions, ldae, direction)
    variant = f"along-{re.sub('[^A-Za-z0-9]+', '-', direction)}_" if direction else ""
    application = open_application(
        context.obj,
        "forecast",
        names,
        ae=ae,
        ldae=ldae,
        out=out,
        steps=steps,
        sampler=sampler,
        latents=latents,
        volumes=volumes,
        space=space,
        variant=f"{variant}seed-{seed}{'_detail' if detail else ''}",
        scan_by_scan=False,
    )
    from pipeline.applications.forecast_run import ForecastOptions, run_forecast

    course = course_of(semantics, manifest, application.models)
    doubt = None if direction is None else doubt_of_direction(directions, direction)
    remarks = [line for line in (beyond_seen(after, course), doubt) if line]
    for line in remarks:
        log.warning("%s", line)
    asked = ForecastOptions(
        after=after,
        draws=draws,
        seed=seed,
        keep=keep_draws,
        detail=detail,
        intervals=intervals_of(application.opener.volumes, manifest),
        remarks=remarks,
        options={
            "slope": slope,
            "course": course.digest,
            "direction": along and {"name": direction, "sha256": along.digest},
        },
    )
    used = _along(course, along)
    path, is_new = run_forecast(names, visits, used, application.opener, application.writer, asked)
    typer.echo(
        f"{path}: {len(after)} forecasts of {draws} draws, learned from {course.people} people"
        f"{'' if is_new else ', made already and kept'}"
    )
    if regions:
        measure_made(out)


def _names(
    scans: list[str] | None,
    image: Path | None,
    subject: str | None,
    manifest: Path,
    latents: Path | None,
) -> list[str]:
    """Return the visits asked for, in one of the three ways."""
    from pipeline.applications.forecast_visits import visits_of
    from pipeline.applications.scan_names import is_image
    from pipeline.stores.latents import open_latents
    from schemas.errors import ParamsError

    if sum(given is not None for given in (scans or None, image, subject)) != 1:
        raise ParamsError("forecast: give visits as --scan (repeated), --subject or --input; one")
    if image is not None:
        if not is_image(str(image)):
            raise ParamsError(f"--input {image}: expected an image file")
        return [str(image)]
    if subject is not None:
        if latents is None:
            raise ParamsError("--subject: give the --latents that hold the visits")
        return visits_of(subject, manifest, list(open_latents(latents).row_of))
    return list(scans or [])


def _months_after(text: str) -> list[float]:
    from pipeline.applications.number_ranges import parse_numbers
    from schemas.errors import ParamsError

    after = sorted(set(parse_numbers(text, option="--months")))
    if after[0] <= 0:
        raise ParamsError(
            f"--months {after[0]:g}: months after the last visit, above 0; `pipeline interpolate`"
            " fills in what lies between two visits"
        )
    return after


def _direction(directions: Path | None, ldae: Path, name: str) -> "Direction":
    from pipeline.models.direction import find_direction
    from pipeline.models.model_folder import check_artefact

    config = check_artefact(ldae, kind="ldae")
    return find_direction(directions, ldae, name, config=config)


def _along(course: "Course", direction: "Direction | None") -> "Course":
    return course if direction is None else course.along(direction.step, direction.reader)
