"""Tables: the numbers given, with intervals where there are enough subjects."""

import json
from pathlib import Path

import pandas as pd
import pytest
from jinja2 import Environment, PackageLoader

from pipeline.report.sections.wording import number
from schemas.metrics import FEWEST_SUBJECTS, Estimate


def test_few_subjects_have_no_interval():
    few = {"value": 0.5, "low": 0.5, "high": 0.5, "subjects": FEWEST_SUBJECTS - 1}
    enough = few | {"low": 0.4, "subjects": FEWEST_SUBJECTS}
    assert [str(Estimate(**e)) for e in (few, enough)] == ["0.500", "0.500 [0.400, 0.500]"]


def test_few_subjects_have_no_interval_on_the_page():
    few = {"value": 0.5, "low": 0.5, "high": 0.5, "subjects": FEWEST_SUBJECTS - 1}
    enough = few | {"low": 0.4, "subjects": FEWEST_SUBJECTS}
    page = Environment(loader=PackageLoader("pipeline", "report/templates"), autoescape=True)
    page.filters["number"] = number
    page.filters["interval"] = lambda figure: Estimate(**figure).interval
    macro = page.get_template("macros.html.j2", globals=page.globals).module.estimate
    assert "subjects" in macro(few)
    assert "0.500–" not in macro(few)
    assert "0.400–0.500" in macro(enough)
    assert "0.50" not in macro(few | {"interval_method": "few"}), "an AUC of eight people"


@pytest.mark.slow
def test_numbers_of_the_tables_are_the_numbers_given(study: tuple[Path, str]) -> None:
    root, text = study
    probe = json.loads((root / "probe" / "metrics.json").read_text())
    auc = probe["test"]["diagnosis"]["y_sem"]["roc_auc"]
    assert f"{auc['value']:.3f}" in text
    assert f"{auc['low']:.3f} to {auc['high']:.3f}" in text
    evaluation = json.loads((root / "evaluate" / "metrics.json").read_text())
    assert f"{evaluation['reconstruction']['ldae']['ssim_brain']['value']:.3f}" in text
    assert probe["skipped"] == {} or all(reason in text for reason in probe["skipped"].values())


@pytest.mark.slow
def test_tables_are_files_too(study: tuple[Path, str]) -> None:
    tables = study[0] / "tables"
    visits = pd.read_csv(tables / "middle_visits.csv")
    row = visits.query("target == 'scan' and method == 'blend' and measure == 'ssim_brain'")
    assert row["value"].item() == pytest.approx(0.995)
    assert r"\toprule" in (tables / "probe_test_diagnosis.tex").read_text()
    assert r"ldae\_detail" in (tables / "middle_visits.tex").read_text()
    dose = pd.read_csv(tables / "dose.csv")
    assert dose.query("method == 'ldae'")["ventricle_ml"].is_monotonic_increasing
