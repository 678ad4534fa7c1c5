"""A fitted probe, applied once more."""

import numpy as np
import pytest

from pipeline.models.direction import Readout, write_directions
from pipeline.probes.applied import apply_probes
from pipeline.probes.protocols import fit_probes
from pipeline.probes.readouts import readouts_of
from schemas.errors import ContractError
from tests.support.probe_cohort import QUICK, cohort


@pytest.mark.slow
def test_a_probe_of_a_study_applied_again_gives_its_own_figures_and_judges_no_fitted_subject(
    tmp_path,
):
    features, table = cohort()
    results = fit_probes(features, table, QUICK)
    path = tmp_path / "directions.json"
    fitted = table["subject_id"][table["split"] != "test"]
    write_directions(
        path, results.directions, digests={"ldae": "x"}, readouts=readouts_of(results),
        fitted_subjects=fitted,
    )  # fmt: skip
    assert not any(subject in path.read_text() for subject in fitted)
    applied = apply_probes(path, features["y_sem"], table, QUICK, ldae_digest="x")
    for target in ("diagnosis", "age_years"):
        again = applied.results.metrics[target]["y_sem"]
        before = results.metrics[target]["y_sem"]
        for metric in ("roc_auc", "brier") if target == "diagnosis" else ("mae", "r2"):
            assert again[metric].value == pytest.approx(before[metric].value, abs=1e-6)
            assert again[metric].low == pytest.approx(before[metric].low, abs=1e-6)
    assert set(applied.results.predictions["subject_id"]) == set(
        table["subject_id"][table["split"] == "test"]
    )
    assert len(applied.scores) == 2 * len(table)
    with pytest.raises(ContractError, match="directions of another LDAE"):
        apply_probes(path, features["y_sem"], table, QUICK, ldae_digest="y")


@pytest.mark.slow
def test_a_readout_is_the_probe_it_was_made_of():
    features, table = cohort()
    results = fit_probes(features, table, QUICK)
    probe = results.fits["diagnosis"]["y_sem"]
    readout = readouts_of(results)["diagnosis"]
    assert readout == Readout(
        kind="classification", slope=pytest.approx(np.linalg.norm(probe.coef)),
        intercept=probe.intercept, classes=("CN", "AD"),
    )  # fmt: skip
