"""What sections tell, and what they tell where something is missing."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.figures.probe_plots import feature_name
from pipeline.report.render import load_context
from pipeline.report.sections.applications import VISIT_MEASURES, verdicts
from pipeline.report.sections.cohort import headline_section
from pipeline.report.sections.verdicts import doubt_of, told, verdict_of
from schemas.manifest import VOLUMES
from schemas.metrics import FEWEST_SUBJECTS, Estimate
from schemas.params import Params
from schemas.results import ProbeMetrics
from tests.support.report_study import PARAMS, SECTIONS, Page, render, write_study


@pytest.mark.slow
def test_phantoms_are_called_phantoms(study: tuple[Path, str], tmp_path: Path) -> None:
    """By what the manifest holds: --phantom and --input override the parameters."""
    root, text = study
    assert "Synthetic phantoms, no clinical meaning" in text
    params = Params.model_validate({"cohort": {"source": "bids", "input": "in"}})
    assert "no clinical meaning" in render(root, params)
    real = pd.read_csv(root / "manifest.csv").drop(columns=["atrophy", *VOLUMES])
    real.to_csv(tmp_path / "manifest.csv", index=False)
    assert "no clinical meaning" not in render(tmp_path, Params())


def test_one_subject_decides_nothing() -> None:
    certain = {"value": -1.0, "low": -1.0, "high": -1.0, "subjects": 1}
    found = {"ldae_minus": {"scan": {"blend": dict.fromkeys(VISIT_MEASURES, certain)}}}
    (row,) = verdicts(found)
    assert {cell["verdict"] for cell in row["cells"]} == {"too few subjects to tell"}


@pytest.mark.parametrize(
    ("kind", "metric", "estimate", "p", "doubted"),
    [
        ("classification", "roc_auc", (0.9, 0.7, 1.0, 12), 0.01, False),
        ("classification", "roc_auc", (0.9, 0.7, 1.0, 12), 0.18, True),
        ("classification", "roc_auc", (0.6, 0.4, 0.8, 12), 0.01, True),
        ("classification", "roc_auc", (1.0, 1.0, 1.0, 12), 0.01, True),
        ("classification", "roc_auc", (1.0, 0.4, 1.0, FEWEST_SUBJECTS - 1), 0.01, True),
        ("regression", "mae_gain", (0.4, 0.1, 0.6, 12), 0.01, False),
        ("regression", "mae_gain", (0.4, 0.1, 0.6, 12), 0.3, True),
        ("regression", "mae_gain", (-0.2, -0.3, 0.1, 12), 0.01, True),
    ],
)
def test_a_direction_is_worth_no_more_than_its_probe(kind, metric, estimate, p, doubted):
    figure = dict(zip(("value", "low", "high", "subjects"), estimate, strict=True))
    fewer = figure | {"low": 0.9, "subjects": 3}
    tested = {"permutation": {"p": p, "permutations": 100}}
    probe = ProbeMetrics.model_validate(
        {
            "targets": {"label": {"kind": kind, "cv": tested}},
            "test": {"label": {"y_sem": {metric: fewer, "mae": fewer}}},
            "cv": {"label": {"y_sem": {metric: figure, "mae": figure}}},
        }
    )
    direction = "label:AD" if kind == "classification" else "label"
    assert (doubt_of(direction, probe) is not None) == doubted
    assert doubt_of("other", probe) is None
    assert doubt_of(direction, None) is None


@pytest.mark.slow
def test_what_was_not_run_says_so(study: tuple[Path, str]) -> None:
    text = render(study[0], PARAMS)
    for command in ("preprocess", "train-ae", "evaluate", "probe"):
        assert f"pipeline {command}</code> fills this section" in text
    assert "(without effect: autoencoder.source is bundled)" in text
    assert sorted(Page(text).ids) == sorted(SECTIONS)


def test_labels_may_be_missing_altogether(tmp_path: Path) -> None:
    pd.DataFrame(
        {"scan_id": ["sub-1"], "subject_id": ["sub-1"], "split": ["train"], "age_years": [np.nan]}
    ).to_csv(tmp_path / "manifest.csv", index=False)
    assert "sub-1" not in render(tmp_path, Params())


def test_an_ldae_that_came_trained_is_not_said_to_be_missing(tmp_path: Path) -> None:
    pd.DataFrame({"scan_id": ["sub-1"], "subject_id": ["sub-1"], "split": ["train"]}).to_csv(
        tmp_path / "manifest.csv", index=False
    )
    taken = Params.model_validate({"train_ldae": {"source": "bundled"}})
    text = render(tmp_path, taken)
    assert "The LDAE was trained elsewhere: its card says on whom." in text
    assert text.count("(without effect: train_ldae.source is bundled)") == 2
    assert "trained elsewhere: its card" not in render(tmp_path, Params())


def test_an_ldae_that_went_on_from_a_finished_one_is_told_by_what_its_stages_say(
    tmp_path: Path,
) -> None:
    pd.DataFrame({"scan_id": ["sub-1"], "subject_id": ["sub-1"], "split": ["train"]}).to_csv(
        tmp_path / "manifest.csv", index=False
    )
    config = tmp_path / "models" / "ldm" / "config.json"
    config.parent.mkdir(parents=True)
    told = "The LDAE started from weights trained elsewhere: its card says on whom."
    for started_from, expected in ((None, False), ("0" * 64, True)):
        config.write_text(json.dumps({"started_from": started_from}))
        text = render(tmp_path, Params(), models=tmp_path / "models")
        assert (told in text) == expected


@pytest.mark.slow
def test_the_report_says_who_wins_where(study: tuple[Path, str]) -> None:
    text = re.sub(r"\s+", " ", "".join(Page(study[1]).text))
    assert re.search(r"LDAE against nearest visit ?better", text)
    assert re.search(r"LDAE against voxel blend ?worse", text)
    assert "diagnosis:AD" in text


@pytest.mark.slow
def test_the_report_says_what_y_sem_beats_and_whom_it_finds(study: tuple[Path, str]) -> None:
    text = re.sub(r"\s+", " ", "".join(Page(study[1]).text))
    assert re.search(r"minus mean brain ?\+0\.0200.*?SSIM better, MSE not shown", text)
    assert "Whose brain is it?" in text
    assert re.search(r"a changed copy of the scan ?0\.95 ?0\.75–1\.00", text)
    assert re.search(r"Diagnosis, paired on the same scans, ROC-AUC of y_sem minus", text)
    assert "better than PCA of latents (" in text
    assert re.search(r"Age: the same within sources.*?Lund: \d+, Oslo: \d+ people", text)
    assert re.search(r"Excluded by diagnosis.*?AD ?30 ?30 ?0 ?0\.00.*?CN ?30 ?30 ?1 ?0\.03", text)
    assert "1 excluded before they stood in the manifest" in text
    assert "What so many people can show" in text
    assert re.search(r"Age: y_sem at each site.*?Lund ?\d+.*?all, left out in turn ?30", text)
    assert re.search(r"Age, what y_sem adds to covariates alone, paired: MAE [−-]\d", text)


def test_a_difference_is_told_by_its_interval_and_by_what_is_better() -> None:
    def difference(value: float, low: float, high: float) -> Estimate:
        return Estimate(value=value, low=low, high=high, subjects=20, interval_method="hall")

    assert verdict_of("mae", difference(-1, -2, -0.5)) == "better"
    assert verdict_of("roc_auc", difference(-0.1, -0.2, -0.05)) == "worse"
    assert verdict_of("ssim_brain", difference(0.1, -0.1, 0.3)) == "not shown"
    assert verdict_of("mae", Estimate(value=-1, subjects=3, interval_method="none")) == "not shown"
    assert told({"ssim_brain": difference(1, 0.5, 2), "mse_brain": difference(-1, -2, -0.5)}) == (
        "better"
    )


@pytest.mark.slow
def test_parts_left_out_say_why(study: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copy(study[0] / "manifest.csv", tmp_path)
    parts = ("manipulation", "interpolation", "generation")
    (tmp_path / "evaluate").mkdir()
    document = {part: {"skipped": f"no {part} today"} for part in parts}
    (tmp_path / "evaluate" / "metrics.json").write_text(json.dumps(document))
    text = render(tmp_path, PARAMS, evaluate=tmp_path / "evaluate")
    for part in parts:
        assert f"Left out: no {part} today." in text


@pytest.mark.slow
def test_few_test_subjects_are_headed_by_cross_validation(tmp_path: Path) -> None:
    write_study(tmp_path, subjects=18)
    context = load_context(
        params=PARAMS, manifest=tmp_path / "manifest.csv", probe=tmp_path / "probe"
    )
    cards = headline_section(context)
    age = next(card for card in cards if card["label"].startswith("Age"))
    assert age["note"].endswith("cross-validated")
    assert age["estimate"].subjects == 9, "val and test; test alone has 6"
    assert "FLAIR" not in cards[0]["note"]
    context.manifest["contrast"] = "FLAIR"
    assert " · FLAIR · " in headline_section(context)[0]["note"]


@pytest.mark.slow
def test_a_cross_fitted_study_says_so_and_on_how_many_people(
    study: tuple[Path, str], tmp_path: Path
) -> None:
    root, before = study
    assert "ross-fitted" not in before
    shutil.copytree(root, tmp_path / "study")
    metrics = tmp_path / "study" / "probe" / "metrics.json"
    content = json.loads(metrics.read_text())
    made = {"folds": 5, "subjects": 111, "scans": 150, "aligned_on": "60 scans of phantoms.zarr"}
    content["crossfit"] = made | {"agreement": {"modes": 0.71, "summary": 0.4}}
    metrics.write_text(json.dumps(content))
    text = render(tmp_path / "study", PARAMS, probe=metrics.parent)
    words = " ".join(re.sub("<[^>]+>", " ", text).split())
    assert "Cross-fitted over all 111 subjects" in words
    assert "Both stages were trained 5 times" in words
    assert "summaries aligned on 60 scans of phantoms.zarr" in words
    assert "explains 71 % in the coordinates of modes and 40 % in the summary" in words
    assert "Cross-validated over val and test" not in words


def test_a_report_on_imported_weights_does_not_claim_to_have_trained_or_fitted(
    tmp_path: Path,
) -> None:
    (tmp_path / "manifest.csv").write_text("scan_id,subject_id,split\na,a,test\n")
    files = {"decoder": {"file": "decoder.pth", "sha256": "0" * 64}}
    imported = {"files": files, "weights": "ema", "licence": "non-profit research only"}
    (tmp_path / "models" / "ldae").mkdir(parents=True)
    config = {"imported": imported, "weights_sha256": "0" * 64}
    (tmp_path / "models" / "ldae" / "config.json").write_text(json.dumps(config))
    own = render(tmp_path, Params())
    assert "learned from latents alone" in own
    assert "pipeline train-ae</code> fills this section" in own
    text = render(tmp_path, Params(), models=tmp_path / "models")
    assert "imported from decoder.pth" in text
    assert "the LDAE that reads them was trained elsewhere" in text
    assert "Nothing was trained here: weights of others" in text
    assert "learned from latents alone" not in text
    assert "pipeline train-ae</code> fills this section" not in text


def test_feature_sets_beside_y_sem_keep_its_name() -> None:
    for name in ("y_sem + size", "y_sem + covariates", "y_sem - covariates", "y_sem harmonised"):
        assert feature_name(name).startswith("y_sem")
