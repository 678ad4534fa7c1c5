"""The evaluation on tiny models: every part and method, files written, mismatches refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.evaluation import reconstruction
from pipeline.evaluation.draws import DrawnBrains
from pipeline.evaluation.evaluate import evaluate_study
from pipeline.evaluation.reconstruction import (
    DRAWN_METHODS,
    LINEAR_METHODS,
    METHODS,
    Scan,
    reconstruct_all,
)
from pipeline.metrics.reconstruction import summarise_reconstruction
from pipeline.nets.lpips import Lpips
from schemas.errors import ContractError
from schemas.results import EvaluateMetrics
from stages.headline import read_headline


@pytest.mark.slow
def test_every_part_is_judged_and_written(tmp_path, study):
    out = tmp_path / "evaluate"
    metrics = evaluate_study(study, out)
    tables = {path.stem: pd.read_parquet(path) for path in (out / "per_scan").iterdir()}
    main = tables["reconstruction"].query("num_inference_steps == 4")
    methods = {*METHODS, *LINEAR_METHODS, *DRAWN_METHODS}
    assert main.groupby("method")["scan_id"].nunique().to_dict() == dict.fromkeys(methods, 5)
    assert set(metrics.reconstruction) == methods
    assert set(metrics.differences) == set(reconstruction.PAIRS) - {"ldae_minus_voxel_dae"}
    assert set(metrics.steps) == {"2", "4"}
    assert set(metrics.steps["2"]) == {"ldae", "ldae_y_sem_only", "lddim"}
    assert set(metrics.manipulation["methods"]) == {"ldae", "pca"}
    assert tables["manipulation"].groupby("method").size().to_dict() == {"ldae": 6, "pca": 6}
    assert metrics.interpolation["visits"] == 1
    assert list(metrics.interpolation["by_gap"]) == ["up to 24 months"]
    assert set(metrics.generation["sets"]) == {"held_out", "denoiser", "prior"}
    written = (out / "metrics.json").read_text()
    assert EvaluateMetrics.model_validate_json(written) == metrics
    with np.load(out / "pictures" / "manipulation.npz") as pictures:
        assert pictures["ldae"].shape == (2, 3, 16, 24, 20)
    lines = read_headline(evaluate=out)
    assert any("inverted x_T" in line for line in lines)
    assert all("subject" in line for line in lines if line.startswith("SSIM"))


@pytest.mark.slow
def test_what_a_scan_gives_does_not_depend_on_what_is_beside_it(study):
    scans = [Scan("sub-017", "b", (), 0), Scan("sub-016", "a", (), 1)]
    alone, _ = reconstruct_all(study, scans[1:], DrawnBrains(study))
    among, _ = reconstruct_all(study, scans, DrawnBrains(study))
    for method, volumes in alone.items():
        torch.testing.assert_close(among[method][1:], volumes, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_every_scan_is_given_y_sem_of_several_other_subjects(study):
    judged = study.judged
    counts = judged["subject_id"].value_counts()
    scans = list(reconstruction._with_other_subjects(judged, 2))
    subject_of = dict(zip(judged["scan_id"], judged["subject_id"], strict=True))
    for scan in scans:
        others = [subject_of[other] for other in scan.other_ids]
        assert scan.subject_id not in others
        assert len(others) == len(set(others)) == min(reconstruction.OTHERS, len(counts) - 1)
    made, _ = reconstruct_all(study, scans[:2], DrawnBrains(study))
    several = made["ldae_other_y_sem"]
    assert several.shape[:2] == (2, len(scans[0].other_ids))
    alone = dataclasses.replace(scans[0], other_ids=scans[0].other_ids[-1:])
    last, _ = reconstruct_all(study, [alone], DrawnBrains(study))
    torch.testing.assert_close(last["ldae_other_y_sem"][0, 0], several[0, -1], atol=1e-4, rtol=0)
    rows = reconstruction.score_reconstruction(scans[0], made["ae"][0], {"x": several[0]}, 4)
    assert [row["y_sem_of"] for row in rows] == list(scans[0].other_ids)


@pytest.mark.slow
def test_lpips_stands_in_the_table_where_its_weights_are(study):
    scan = Scan("sub-016", "a", (), 0)
    torch.manual_seed(0)
    truth, lpips = torch.rand(16, 24, 20), Lpips().requires_grad_(False)
    worse = {"ae": truth[None][0], "ldae": (truth + 0.2 * torch.randn_like(truth)).clamp(0, 1)}
    rows = pd.DataFrame(reconstruction.score_reconstruction(scan, truth, worse, 4, lpips))
    assert rows["lpips"][0] == 0
    assert rows["lpips"][1] != 0
    summary = summarise_reconstruction(rows)
    assert summary["ldae"]["lpips"]["value"] == pytest.approx(rows["lpips"][1])
    assert "lpips" not in reconstruction.score_reconstruction(scan, truth, worse, 4)[0]


@pytest.mark.slow
def test_an_empty_split_is_refused(tmp_path, study):
    table = study.manifest[study.manifest["split"] == "train"]
    with pytest.raises(ContractError, match="no scan of the test split"):
        evaluate_study(dataclasses.replace(study, manifest=table), tmp_path)
