"""Change by region and counterfactuals against the truth in the report; no trace without them."""

import json

import numpy as np
import pandas as pd

from pipeline.ground_truth.counterfactuals import NO_CHANGE, summarise_pairs
from pipeline.regions.summary import summarise
from schemas.results import RegionMetrics
from tests.support.report_study import PARAMS, render


def people(count=8):
    rng = np.random.default_rng(2)
    changes = pd.DataFrame(
        {
            "subject_id": f"sub-{person}",
            "region": f"<b>{region}",
            "kind": "atlas",
            "ml": 7.0,
            "volume_percent": effect + 0.3 * rng.normal(),
            "volume_ml": 0.07 * effect,
            "intensity_percent": 0.1 * rng.normal(),
        }
        for person in range(count)
        for region, effect in (("hippocampus_L", -4.0), ("insula_R", 0.0))
    )
    pairs = pd.DataFrame(
        {
            "subject_id": f"sub-{person}",
            "change": 0.3,
            "method": method,
            "mse_brain": error + 0.01 * rng.normal(),
            "ssim_brain": 0.9,
            "ventricle_error_ml": error,
            "asked_ml": 5.0,
            "given_ml": share * 5.0,
        }
        for person in range(count)
        for method, error, share in (("ldae", 1.0, 0.8), ("pca", 2.0, 0.5), (NO_CHANGE, 3.0, 0.0))
    )
    return changes, pairs


def test_both_become_sections(tmp_path):
    table = pd.DataFrame({"scan_id": ["a"], "subject_id": ["a"], "split": ["train"]})
    table.to_csv(tmp_path / "manifest.csv", index=False)
    evaluate = tmp_path / "evaluate"
    plain = render(tmp_path, PARAMS, evaluate=evaluate)
    assert 'id="regions"' not in plain
    assert 'id="true-counterfactuals"' not in plain
    changes, pairs = people()
    metrics = RegionMetrics(atlas="Desikan–Killiany", compared="visits", space="mni")
    metrics.groups["scale +1"] = summarise(changes)
    metrics.remarks.append("<i>the probe is not shown to beat chance")
    (tmp_path / "regions").mkdir()
    (tmp_path / "regions" / "metrics.json").write_text(json.dumps(metrics.model_dump()))
    truth = summarise_pairs(pairs) | {"direction": "diagnosis:AD", "changes": [0.3]}
    evaluate.mkdir()
    document = {"true_counterfactuals": truth}
    (evaluate / "metrics.json").write_text(json.dumps(document))
    page = render(tmp_path, PARAMS, evaluate=evaluate)
    for name in ("regions", "true-counterfactuals"):
        assert f'id="{name}"' in page
        assert f'href="#{name}"' in page
    assert "1 of 2 regions change beyond doubt" in page
    assert "&lt;b&gt;hippocampus_L" in page
    assert "<i>the probe" not in page
    assert "8 people whom no network saw" in page
    assert "mean shift" not in page
    rows = pd.read_csv(tmp_path / "tables" / "true_counterfactuals.csv")
    calibration = rows[(rows["measure"] == "calibration") & (rows["method"] == "ldae")]
    assert calibration["value"].tolist() == [0.8]
