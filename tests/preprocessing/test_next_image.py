"""Where the first image of a session is refused, the next is tried; the chain itself is faked."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.cohort.candidates import candidates_of
from pipeline.cohort.ingest import build_cohort
from pipeline.preprocessing.qc_overrides import Override
from pipeline.preprocessing.run import PreprocessSummary, preprocess_cohort
from pipeline.stores.volumes import open_volumes
from schemas.params import CohortParams
from tests.support.fake_chain import PARAMS, Chain

CONTENTS = {
    "sub-1": {"run-1": "broken 1", "run-2": "good 1"},
    "sub-2": {"run-1": "wrong 2", "run-2": "broken 2", "run-3": "odd 2"},
    "sub-3": {"run-1": "wrong 3", "run-2": "broken 3"},
    "sub-4": {"run-1": "good 4", "run-2": "good 44"},
    "sub-5": {"run-1": "memory", "run-2": "good 5"},
    "sub-6": {"ce-gd": "good 6"},
}
"""The content of a file decides what the stand-in for the chain makes of it."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for subject, files in CONTENTS.items():
        folder = tmp_path / "bids" / subject / "anat"
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / f"{subject}_{name}_T1w.nii.gz").write_text(content)
    return tmp_path / "bids"


def run(root: Path, overrides: dict[str, Override] | None = None) -> PreprocessSummary:
    found = build_cohort(CohortParams(source="bids"), input_path=root)
    return preprocess_cohort(
        found.manifest,
        PARAMS,
        manifest_dir=root,
        out=root.parent / "v.zarr",
        qc_csv=root.parent / "qc.csv",
        quarantine_csv=root.parent / "q.csv",
        prior_quarantine=found.refused,
        workers=1,
        overrides=overrides,
        candidates=candidates_of(found.candidates, root),
    )


def qc(root: Path) -> pd.DataFrame:
    return pd.read_csv(root.parent / "qc.csv", dtype=str).set_index("scan_id").fillna("")


def test_the_next_run_is_taken_where_the_first_is_refused(root: Path, fake: Chain) -> None:
    summary = run(root)
    table = qc(root)
    assert list(table.index) == [
        *(f"sub-{n}_run-1" for n in range(1, 6)), "sub-6_ce-gd"]  # fmt: skip
    first = table.loc["sub-1_run-1"]
    assert first["path"].endswith("sub-1_run-2_T1w.nii.gz")
    assert first["status"] == "warn"
    assert first["reasons"].startswith("sub-1_run-1_T1w.nii.gz was refused (truncated gzip: ")
    assert first["reasons"].endswith("sub-1_run-2_T1w.nii.gz is taken instead")
    assert table.loc["sub-2_run-1", "path"].endswith("sub-2_run-3_T1w.nii.gz")
    assert "sub-2_run-2_T1w.nii.gz was refused" in table.loc["sub-2_run-1", "reasons"]
    store = open_volumes(root.parent / "v.zarr")
    assert store.attributes.scan_ids == ["sub-1_run-1", "sub-2_run-1", "sub-4_run-1", "sub-6_ce-gd"]
    assert fake.calls.count("sub-4_run-2_T1w.nii.gz") == 0
    assert (summary.passed, summary.warned, summary.quarantined) == (1, 3, 2)


def test_where_all_runs_are_refused_the_row_tells_of_each(root: Path, fake: Chain) -> None:
    run(root)
    lost = pd.read_csv(root.parent / "q.csv", dtype=str)
    lost = lost[lost["stage"] == "preprocess"].set_index("scan_id")
    assert set(lost.index) == {"sub-3_run-1", "sub-5_run-1"}
    assert lost.loc["sub-3_run-1", "path"].endswith("sub-3_run-1_T1w.nii.gz")
    assert "correlation" in lost.loc["sub-3_run-1", "reason"]
    assert "sub-3_run-2_T1w.nii.gz was refused (truncated" in lost.loc["sub-3_run-1", "reason"]


def test_trouble_of_the_machine_is_no_reason_for_the_next_run(root: Path, fake: Chain) -> None:
    run(root)
    assert "sub-5_run-2_T1w.nii.gz" not in fake.calls
    assert "out of memory" in qc(root).loc["sub-5_run-1", "reasons"]


def test_a_second_call_tries_nothing_again(root: Path, fake: Chain) -> None:
    run(root)
    before, calls = qc(root), len(fake.calls)
    digest = open_volumes(root.parent / "v.zarr").attributes.fingerprints
    run(root)
    assert fake.calls[calls:] == ["sub-5_run-1_T1w.nii.gz"]
    pd.testing.assert_frame_equal(qc(root), before)
    assert open_volumes(root.parent / "v.zarr").attributes.fingerprints == digest


def test_a_stopped_run_goes_on_with_the_next_image(root: Path, fake: Chain) -> None:
    run(root)
    whole = np.asarray(open_volumes(root.parent / "v.zarr").read_row(0).volume)
    for name in ("v.zarr", "v.zarr.records.json"):
        (root.parent / name).rename(root.parent / f"old-{name}")
    fake.stop_after = len(fake.calls) + 7
    with pytest.raises(KeyboardInterrupt):
        run(root)
    fake.stop_after, done = None, len(fake.calls)
    run(root)
    assert len(fake.calls) - done < 7
    np.testing.assert_array_equal(open_volumes(root.parent / "v.zarr").read_row(0).volume, whole)


def test_a_verdict_by_hand_is_about_the_scan_and_not_its_next_image(
    root: Path, fake: Chain
) -> None:
    verdicts = {"sub-1_run-1": Override("fail", "motion"), "sub-2_run-1": Override("pass", "seen")}
    run(root, verdicts)
    assert "sub-1_run-2_T1w.nii.gz" not in fake.calls
    table = qc(root)
    assert table.loc["sub-2_run-1", "status"] == "pass"
    assert table.loc["sub-2_run-1", "path"].endswith("sub-2_run-3_T1w.nii.gz")


def test_what_the_cohort_stage_says_of_an_image_is_a_warning(root: Path, fake: Chain) -> None:
    run(root)
    assert qc(root).loc["sub-6_ce-gd", "status"] == "warn"
    assert qc(root).loc["sub-6_ce-gd", "reasons"] == "scanned with a contrast agent by its name"


def test_a_scan_passed_by_hand_is_not_done_again_at_every_run(root: Path, fake: Chain) -> None:
    verdicts = {
        "sub-2_run-1": Override("pass", "its third image is taken"),
        "sub-3_run-1": Override("pass", "its first is good, for all the figures say"),
    }
    run(root, verdicts)
    before, calls = qc(root), len(fake.calls)
    assert before.loc["sub-2_run-1", "path"].endswith("sub-2_run-3_T1w.nii.gz")
    assert before.loc["sub-3_run-1", "path"].endswith("sub-3_run-1_T1w.nii.gz")
    run(root, verdicts)
    assert fake.calls[calls:] == ["sub-5_run-1_T1w.nii.gz"]  # trouble of the machine
    pd.testing.assert_frame_equal(qc(root), before)


def test_an_image_passed_by_hand_later_is_done_where_its_volume_is_not_kept(
    root: Path, fake: Chain
) -> None:
    run(root)
    calls = len(fake.calls)
    run(root, {"sub-3_run-1": Override("pass", "good after all")})
    assert sorted(fake.calls[calls:]) == ["sub-3_run-1_T1w.nii.gz", "sub-5_run-1_T1w.nii.gz"]
    assert "sub-3_run-1" in open_volumes(root.parent / "v.zarr").attributes.scan_ids
