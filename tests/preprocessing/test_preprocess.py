"""A cohort through preprocessing: quarantine, resume, equal bytes. The chain itself is faked."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.cohort.ingest import build_manifest
from pipeline.preprocessing.finished_scans import FinishedScans
from pipeline.preprocessing.run import PreprocessSummary, preprocess_cohort
from pipeline.runtime.files import lock_store
from pipeline.stores.verify import verify_store
from pipeline.stores.volumes import open_volumes
from schemas.errors import ContractError
from schemas.params import CohortParams, PreprocessParams, QcParams
from tests.support.command_line import store_digest
from tests.support.fake_chain import PARAMS, Chain

NUM_SCANS = 20


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A folder of scans, of which four are bad in different ways, and its manifest's quarantine."""
    root = tmp_path / "scans"
    root.mkdir()
    kinds = {3: "broken", 5: "crash", 7: "wrong", 9: "odd"}
    for i in range(NUM_SCANS):
        (root / f"s{i:02d}.nii").write_text(f"{kinds.get(i, 'good')} {'x' * i}")
    (root / "empty.nii").write_text("")
    return root


def run(
    cohort: Path, params: PreprocessParams = PARAMS, name: str = "v.zarr", **options: str
) -> PreprocessSummary:
    manifest, refused = build_manifest(CohortParams(source="folder"), input_path=cohort)
    out = cohort.parent / name
    return preprocess_cohort(
        manifest,
        params,
        manifest_dir=cohort,
        out=out,
        qc_csv=out.with_suffix(".qc.csv"),
        quarantine_csv=out.with_suffix(".quarantine.csv"),
        prior_quarantine=refused,
        workers=1,
        **options,
    )


def test_scans_are_stripped_on_the_device_asked_for(cohort: Path, fake: Chain) -> None:
    run(cohort, device="cuda:1")
    assert fake.devices == {"cuda:1"}


def test_bad_scans_are_quarantined_and_the_rest_goes_on(cohort: Path, fake: Chain) -> None:
    summary = run(cohort)
    assert (summary.passed, summary.warned, summary.quarantined) == (16, 1, 4)
    store = open_volumes(cohort.parent / "v.zarr")
    assert len(store) == 17
    assert store.attributes.scan_ids == sorted(store.attributes.scan_ids)
    table = pd.read_csv(cohort.parent / "v.quarantine.csv", dtype=str)
    reasons = dict(zip(table["scan_id"], table["reason"], strict=True))
    assert "empty" in reasons["sub-empty"]
    assert "truncated" in reasons["sub-s03"]
    assert reasons["sub-s05"] == "preprocessing failed: ZeroDivisionError: a bug"
    assert "correlation" in reasons["sub-s07"]
    qc = pd.read_csv(cohort.parent / "v.qc.csv").set_index("scan_id")
    assert qc["status"].value_counts().to_dict() == {"pass": 16, "error": 2, "warn": 1, "fail": 1}
    assert not FinishedScans(cohort.parent / "v.zarr").folder.exists()


def test_second_run_does_nothing_and_changes_nothing(cohort: Path, fake: Chain) -> None:
    run(cohort)
    before = store_digest(cohort.parent / "v.zarr")
    fake.calls.clear()
    summary = run(cohort)
    # The scan that failed QC has no volume to keep, and no need of one: its numbers are known.
    assert fake.calls == []
    assert summary.reused == NUM_SCANS
    assert summary.quarantined == 4
    assert store_digest(cohort.parent / "v.zarr") == before


@pytest.mark.parametrize(
    "stop_after", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 19))]
)
def test_interrupted_run_resumes_to_the_same_bytes(
    cohort: Path, fake: Chain, stop_after: int
) -> None:
    run(cohort, name="truth.zarr")
    fake.calls.clear()
    fake.stop_after = stop_after
    with pytest.raises(KeyboardInterrupt):
        run(cohort)
    assert not (cohort.parent / "v.zarr").exists()
    done = len(fake.calls)
    fake.stop_after = None
    fake.calls.clear()
    summary = run(cohort)
    assert summary.reused == done == stop_after
    assert len(fake.calls) == NUM_SCANS - done
    assert store_digest(cohort.parent / "v.zarr") == store_digest(cohort.parent / "truth.zarr")


def test_only_changed_and_new_scans_are_done_again(cohort: Path, fake: Chain) -> None:
    run(cohort)
    fake.calls.clear()
    (cohort / "s00.nii").write_text("good, but different")
    (cohort / "s99.nii").write_text("good and new " + "x" * 40)
    (cohort / "s01.nii").unlink()
    summary = run(cohort)
    assert sorted(fake.calls) == ["s00.nii", "s99.nii"]
    assert summary.reused == NUM_SCANS - 2
    ids = open_volumes(cohort.parent / "v.zarr").attributes.scan_ids
    assert "sub-s99" in ids
    assert "sub-s01" not in ids


@pytest.mark.slow
def test_new_thresholds_judge_again_without_new_work(cohort: Path, fake: Chain) -> None:
    run(cohort)
    fake.calls.clear()
    strict = PARAMS.model_copy(update={"qc": QcParams(ncc_fail=0.35)})
    assert run(cohort, strict).quarantined == 5
    assert fake.calls == []
    lax = PARAMS.model_copy(update={"qc": QcParams(ncc_fail=0.05, ncc_warn=0.05)})
    assert run(cohort, lax).quarantined == 3
    assert sorted(fake.calls) == ["s07.nii", "s09.nii"]


@pytest.mark.slow
def test_new_content_params_do_everything_again(cohort: Path, fake: Chain) -> None:
    run(cohort)
    fake.calls.clear()
    assert run(cohort, PARAMS.model_copy(update={"bias_field": False})).reused == 0
    assert len(fake.calls) == NUM_SCANS


@pytest.mark.slow
def test_preprocessing_everything_again_tells_which_parameters_differ(
    cohort: Path, fake: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    run(cohort)
    run(cohort, params=PARAMS.model_copy(update={"qc": QcParams(ncc_warn=0.9)}))
    assert "otherwise" not in caplog.text
    run(cohort, params=PARAMS.model_copy(update={"registration": "rigid"}))
    assert "(registration: affine, now rigid); every scan is done again" in caplog.text


def test_out_of_memory_is_tried_again_next_time(cohort: Path, fake: Chain) -> None:
    (cohort / "s00.nii").write_text("memory")
    run(cohort)
    table = pd.read_csv(cohort.parent / "v.quarantine.csv").set_index("scan_id")
    assert "--workers" in table.loc["sub-s00", "reason"]
    fake.calls.clear()
    run(cohort)
    assert fake.calls == ["s00.nii"]


def test_changed_source_is_noticed(cohort: Path, fake: Chain) -> None:
    manifest, refused = build_manifest(CohortParams(source="folder"), input_path=cohort)
    (cohort / "s00.nii").write_text("swapped after the manifest")
    out = cohort.parent / "v.zarr"
    preprocess_cohort(
        manifest,
        PARAMS,
        manifest_dir=cohort,
        out=out,
        qc_csv=out.with_suffix(".qc.csv"),
        quarantine_csv=out.with_suffix(".q.csv"),
        prior_quarantine=refused,
        workers=1,
    )
    table = pd.read_csv(out.with_suffix(".q.csv")).set_index("scan_id")
    assert "changed since the manifest" in table.loc["sub-s00", "reason"]


@pytest.mark.parametrize(
    ("damage", "redone"),
    [
        pytest.param("shard gone", 16, marks=pytest.mark.slow),
        ("shard flipped", 1),
        pytest.param("affines flipped", 17, marks=pytest.mark.slow),
    ],
)
def test_damage_in_the_store_is_done_again_and_never_copied(
    cohort: Path, fake: Chain, damage: str, redone: int
) -> None:
    run(cohort)
    out = cohort.parent / "v.zarr"
    before = store_digest(out)
    array = "native_affine/c/0/0/0" if damage == "affines flipped" else "volume/c/0/0/0/0"
    content = bytearray((out / array).read_bytes())
    content[len(content) // 3] ^= 1
    (out / array).unlink() if damage == "shard gone" else (out / array).write_bytes(content)
    fake.calls.clear()
    (cohort / "s99.nii").write_text("good, and new")
    run(cohort)
    assert len(fake.calls) == 1 + redone
    assert verify_store(out) == {}
    (cohort / "s99.nii").unlink()
    run(cohort)
    assert store_digest(out) == before


def test_a_second_run_leaves_the_store_as_it_lies(cohort: Path, fake: Chain) -> None:
    run(cohort)
    out = cohort.parent / "v.zarr"
    before = (out / "zarr.json").stat().st_mtime_ns
    run(cohort)
    assert (out / "zarr.json").stat().st_mtime_ns == before


def test_damaged_staging_is_redone(cohort: Path, fake: Chain) -> None:
    fake.stop_after = 6
    with pytest.raises(KeyboardInterrupt):
        run(cohort)
    staged = sorted(FinishedScans(cohort.parent / "v.zarr").folder.glob("*.npz"))
    staged[0].write_bytes(staged[0].read_bytes()[:50])
    fake.stop_after = None
    assert run(cohort).reused == 5


def test_nothing_passed_is_an_error_with_its_reasons_on_disk(cohort: Path, fake: Chain) -> None:
    for path in cohort.glob("*.nii"):
        path.write_text("broken " + path.name)
    with pytest.raises(ContractError, match="no scan passed"):
        run(cohort)
    assert len(pd.read_csv(cohort.parent / "v.quarantine.csv")) == NUM_SCANS + 1


def test_two_runs_cannot_write_one_store(cohort: Path, fake: Chain) -> None:
    with (
        lock_store(cohort.parent / "v.zarr"),
        pytest.raises(ContractError, match="another process"),
    ):
        run(cohort)


def test_ledger_keeps_provenance(cohort: Path, fake: Chain) -> None:
    run(cohort)
    records = json.loads((cohort.parent / "v.zarr.records.json").read_text())
    assert len(records) == NUM_SCANS
    good = next(r for r in records if r["scan_id"] == "sub-s00")
    assert {"qc", "notes", "timings", "method_version", "fingerprint"} < set(good)
    manifest, _ = build_manifest(CohortParams(source="folder"), input_path=cohort)
    assert good["source_digest"] == manifest.set_index("scan_id").loc["sub-s00", "source_digest"]
    assert good["versions"]["antspyx"]
    store = open_volumes(cohort.parent / "v.zarr")
    assert good["fingerprint"] in store.attributes.fingerprints
    assert store.attributes.params["preprocess"]["registration"] == "affine"
