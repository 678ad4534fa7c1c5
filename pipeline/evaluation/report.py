"""One self-contained HTML page: no outside request, printable, readable by a clinician."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.compute import write_atomic
from pipeline.evaluation.ae_section import ae_section
from pipeline.evaluation.application_sections import (
    generation_section,
    interpolation_section,
    manipulation_section,
)
from pipeline.evaluation.context import ReportContext, load_context
from pipeline.evaluation.gallery import FigureFolder
from pipeline.evaluation.probe_sections import probe_section
from pipeline.evaluation.sections import (
    cohort_section,
    headline_section,
    inversion_section,
    number,
    parameter_section,
    quality_section,
    reconstruction_section,
    training_section,
)
from pipeline.evaluation.tables import write_tables
from schemas.metrics import Estimate

__all__ = ["ReportContext", "load_context", "render_report"]


def render_report(context: ReportContext, out: Path) -> None:
    """Write the report to `out` (.html), and `figures/` and `tables/` beside it.

    Every image is inside the page as a data URI, and the page's own policy forbids any request.
    A section whose part is missing from the context says that it was not run.
    """
    figures = FigureFolder(out.parent / "figures", context.params.report.picture_quality)
    write_tables(context, out.parent / "tables")
    sections: dict[str, Any] = {
        "headline": headline_section(context),
        "cohort": cohort_section(context, figures),
        "quality": quality_section(context, figures),
        "training": training_section(context, figures),
        "reconstruction": reconstruction_section(context, figures),
        "autoencoder": ae_section(context),
        "inversion": inversion_section(context, figures),
        "probe": probe_section(context, figures),
        "manipulation": manipulation_section(context, figures),
        "interpolation": interpolation_section(context, figures),
        "generation": generation_section(context, figures),
        "parameters": parameter_section(context),
    }
    environment = Environment(
        loader=PackageLoader("pipeline.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["interval"] = lambda figure: Estimate.model_validate(figure).interval
    page = environment.get_template("report.html.j2").render(context=context, **sections)
    write_atomic(out, page)
