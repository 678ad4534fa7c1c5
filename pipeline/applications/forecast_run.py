"""Run a forecast of one person: open the visits, draw, write."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.applications.forecast import forecast
from pipeline.applications.nifti.output_files import PictureFrame, Writer
from pipeline.applications.residual import residual_of
from pipeline.applications.runner import Opener, warn_of_inversion
from pipeline.applications.scan_names import check_names, scan_id_of
from pipeline.measurement.course import Course
from pipeline.measurement.region_intervals import RegionIntervals

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastOptions:
    """What a forecast is asked for."""

    after: Sequence[float]
    """Months after the last visit."""
    draws: int
    seed: int
    keep: bool = False
    detail: bool = False
    intervals: RegionIntervals | None = None
    """Of ventricles and coarse regions, where people's volumes were given."""
    remarks: list[str] = field(default_factory=list)
    """What its reader has to know; written into the JSON."""
    options: dict[str, Any] = field(default_factory=dict)
    """What else the outcome depends on."""


def run_forecast(
    names: Sequence[str],
    months: Sequence[float],
    course: Course,
    opener: Opener,
    writer: Writer,
    asked: ForecastOptions,
) -> tuple[Path, bool]:
    """Forecast from a person's visits (`names` at `months`, in order) and write the outcome.

    Native space is that of the last visit. Returns the JSON's path, and whether it was made now:
    what a former run made of the same visits, models and options is left alone.
    """
    check_names(names, opener.latents)
    last = names[-1]
    stem = scan_id_of(last)
    record = {
        "scan_id": stem,
        "visits": [scan_id_of(name) for name in names],
        "months_of_visits": list(months),
        "options": asked.options
        | {
            "after": list(asked.after),
            "draws": asked.draws,
            "seed": asked.seed,
            "keep": asked.keep,
            "detail": asked.detail,
            "interval": "draws" if asked.intervals is None else "regions",
        },
        "remarks": asked.remarks,
    }
    known = record | {"input": opener.identity(last)}
    if writer.has(stem, known):
        return writer.document(stem), False
    writer.prepare()
    models = opener.models
    scan = opener.open(last)
    writer.check(scan)
    residual = residual_of(models, scan) if asked.detail else None
    earlier = [opener.open(name) for name in names[:-1]]
    codes = [models.embed(own.z_0, own.encoder_volume).double().cpu().numpy() for own in earlier]
    generated = forecast(
        models,
        scan.z_0,
        scan.encoder_volume,
        course=course,
        earlier=np.concatenate(codes) if codes else None,
        visits=months,
        after=asked.after,
        draws=asked.draws,
        seed=asked.seed,
        name=stem,
        residual=residual,
        keep=asked.keep,
        intervals=asked.intervals,
    )
    warn_of_inversion(stem, generated)
    path = writer.write(
        generated,
        stem=stem,
        record=record | {"input": scan.record},
        scan=scan,
        frame=lambda: PictureFrame(generated.comparison()),
    )
    return path, True
