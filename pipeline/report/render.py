"""One self-contained HTML page: no outside request, printable, readable by a clinician."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.report.context import ReportContext, load_context
from pipeline.report.figure_folder import FigureFolder
from pipeline.report.sections.applications import (
    generation_section,
    interpolation_section,
    manipulation_section,
)
from pipeline.report.sections.autoencoder import ae_section
from pipeline.report.sections.cohort import cohort_section, headline_section, quality_section
from pipeline.report.sections.forecast import forecast_section
from pipeline.report.sections.identification import identification_section
from pipeline.report.sections.measurement import (
    brain_age_section,
    longitudinal_section,
    scanner_section,
)
from pipeline.report.sections.parameters import parameter_section
from pipeline.report.sections.probes import probe_section
from pipeline.report.sections.reconstruction import inversion_section, reconstruction_section
from pipeline.report.sections.regions import region_section, true_counterfactual_section
from pipeline.report.sections.training import training_section
from pipeline.report.sections.wording import number
from pipeline.report.tables import write_tables
from pipeline.runtime.files import write_atomic
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
        "identification": identification_section(context),
        "autoencoder": ae_section(context),
        "inversion": inversion_section(context, figures),
        "probe": probe_section(context, figures),
        "scanner": scanner_section(context),
        "brain_age": brain_age_section(context),
        "longitudinal": longitudinal_section(context),
        "manipulation": manipulation_section(context, figures),
        "true_counterfactuals": true_counterfactual_section(context),
        "regions": region_section(context),
        "interpolation": interpolation_section(context, figures),
        "forecast": forecast_section(context, figures),
        "generation": generation_section(context, figures),
        "parameters": parameter_section(context),
    }
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["interval"] = lambda figure: Estimate.model_validate(figure).interval
    page = environment.get_template("report.html.j2").render(context=context, **sections)
    write_atomic(out, page)
