"""What the commands of their own leave is in the report; without them there is no trace of them."""

import json
import re

import numpy as np
import pandas as pd

from pipeline.measurement.brain_age import brain_age
from pipeline.measurement.longitudinal import judge_change
from pipeline.measurement.scanner_effects import judge_scanners
from schemas.evaluation import ProbeParams
from tests.support.report_study import PARAMS, render

QUICK = ProbeParams(permutations=5, folds=5, inner_folds=2)


def people(count=50):
    """Return codes of people with two visits; the first six were on both scanners at once."""
    rng = np.random.default_rng(0)
    rows, values = [], []
    for p in range(count):
        own, age = rng.normal(size=5), rng.uniform(55, 85)
        scans = [(0, p % 2), (12, p % 2)] + ([(0, 1 - p % 2)] if p < 6 else [])
        for months, site in scans:
            scan = f"p{p}_{months}_{site}"
            rows.append((scan, f"p{p}", "", months, age + months / 12, f"<q>{site}", "CN", "train"))
            shown = np.array([age / 5, site, 0, 0, 0])
            values.append(own + shown + rng.normal(0, 0.2, 5))
    names = ["scan_id", "subject_id", "session_id", "months_from_first", "age_years", "site"]
    return np.array(values), pd.DataFrame(rows, columns=[*names, "diagnosis", "split"])


def test_results_of_the_commands_become_sections(tmp_path):
    values, table = people()
    table.to_csv(tmp_path / "manifest.csv", index=False)
    evaluate = tmp_path / "evaluate"
    plain = render(tmp_path, PARAMS, evaluate=evaluate)
    scanner = judge_scanners({"y_sem": values}, table, QUICK, column="site").metrics
    aged, scans = brain_age(values, table, QUICK)
    measures = scans.set_index("scan_id")[["predicted", "gap"]]
    change, _ = judge_change(measures, table, by="diagnosis")
    parts = {"scanner": scanner, "brain-age": aged, "longitudinal": change}
    for name, metrics in parts.items():
        assert f'id="{name}"' not in plain
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics.model_dump()))
    page = render(tmp_path, PARAMS, evaluate=evaluate)
    for name in parts:
        assert f'id="{name}"' in page
        assert f'href="#{name}"' in page
    assert "<q>1" not in page, "names are escaped"
    assert "6 people have repeated scans" in page
    assert "The networks saw the scans of 50 of these people" in page
    assert "mixed model" in page
    sentences = re.findall(r"<p[^>]*>(.*?)</p>", page.split('id="scanner"')[1], re.DOTALL)
    assert any("Mean corrected gap" in text and "]" in text for text in sentences)
    assert not [text for text in sentences if 'class="interval"' in text], "lines of their own"
    assert "Test and retest" in page
