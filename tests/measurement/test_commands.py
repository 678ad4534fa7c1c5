"""The three commands from a store to their files, one after the other."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.measurement.brain_age import brain_age
from pipeline.stores.builder import ArraySpec, StoreBuilder
from schemas.errors import ContractError, ParamsError
from schemas.evaluation import ProbeParams
from schemas.results import BrainAgeMetrics, CrossfitResult
from schemas.stores import StoreAttributes
from stages.cli import app
from tests.support.volumes import SHAPE


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def write_store(path, scan_ids, arrays, ldae="test"):
    """Write a semantics store of arrays (scan, ...)."""
    attributes = StoreAttributes(
        kind="semantics",
        made_by="test",
        params={},
        digests={"ldae": ldae},
        grid={"shape": list(SHAPE), "affine": np.eye(4).tolist(), "orientation": "RAS"},
        scan_ids=scan_ids,
        fingerprints=scan_ids,
    )
    specs = [
        ArraySpec(
            name=name,
            row_shape=values.shape[1:],
            dtype=str(values.dtype),
            dimension_names=tuple(f"{name}_{i}" for i in range(values.ndim - 1)),
            rows_per_chunk=100,
            fill_value=0,
            compressors=(),
        )
        for name, values in arrays.items()
    ]
    builder = StoreBuilder(path, attributes, specs, unit_rows=100)
    for unit in builder.pending():
        builder.write(
            unit, {name: values[unit.start : unit.stop] for name, values in arrays.items()}
        )
    builder.finish()


def write_crossfit(folder, scan_ids, y_sem, *, ldae="test"):
    """Write what `pipeline crossfit` leaves, of two folds."""
    folder.mkdir()
    arrays = {
        "y_sem": y_sem.astype(np.float32),
        "y_sem_by_fold": np.repeat(y_sem[:, None].astype(np.float32), 2, axis=1),
        "fold": (np.arange(len(y_sem)) % 2).astype(np.int32),
    }
    write_store(folder / "semantics.zarr", scan_ids, arrays, ldae)
    (folder / "crossfit.json").write_text(CrossfitResult(folds=2).model_dump_json())
    return folder / "semantics.zarr"


@pytest.fixture
def study(tmp_path):
    """A manifest and a semantics store of 30 people with two visits; four travelled."""
    rng = np.random.default_rng(0)
    rows, codes = [], []
    for p in range(30):
        own, age, person = rng.normal(size=6), rng.uniform(55, 85), f"sub-{p:02d}"
        scans = [(0, p % 2), (12, p % 2)] + ([(0, 1 - p % 2)] if p < 4 else [])
        for months, site in scans:
            session = f"ses-M{months:02d}S{site}"
            scan = f"{person}_{session}"
            told = [scan, person, session, f"{scan}.nii.gz", "0" * 64, age + months / 12, "F", "CN"]
            rows.append([*told, months, "train", f"scanner{site}"])
            codes.append(own + np.array([age / 5, site, 0, 0, 0, 0]) + rng.normal(0, 0.2, 6))
    names = ["scan_id", "subject_id", "session_id", "path", "source_digest", "age_years", "sex"]
    names += ["diagnosis", "months_from_first", "split", "site"]
    table = pd.DataFrame(rows, columns=names)
    table.to_csv(tmp_path / "manifest.csv", index=False)
    codes = np.array(codes, dtype=np.float32)
    write_store(tmp_path / "semantics.zarr", list(table["scan_id"]), {"y_sem": codes})
    return tmp_path


def test_the_commands_write_what_the_documentation_says(study):
    store = ["--manifest", study / "manifest.csv", "--semantics", study / "semantics.zarr"]
    few = "--set=probe.permutations=9"
    result = run("scanner", *store, "--out", study / "scanner", few)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "y_sem: site read with" in result.output
    metrics = json.loads((study / "scanner" / "metrics.json").read_text())
    assert metrics["repeated_people"] == 4
    assert metrics["people"] == {"scanner0": 17, "scanner1": 17}
    numbers = pd.read_csv(study / "scanner" / "numbers.csv")
    assert list(numbers) == ["number", "person", "visit", "site", "person_site", "scan", "icc"]
    assert numbers["site"].idxmax() == 1
    result = run("brain-age", *store, "--out", study / "brain-age")
    assert result.exit_code == 0, (result.output, result.exception)
    table = study / "brain-age" / "brain_age.csv"
    assert len(pd.read_csv(table)) == 64
    result = run(
        *("longitudinal", "--manifest", study / "manifest.csv", "--measures", table),
        *("--by", "diagnosis", "--out", study / "longitudinal"),
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert "predicted, all: " in result.output
    changes = pd.read_csv(study / "longitudinal" / "changes.csv")
    assert changes["measure"].nunique() == 3
    assert len(changes) == 90


def test_brain_age_reads_the_codes_of_networks_that_never_saw_the_person(study):
    """The crossfit store has its own order and knows age better, as no other store here does."""
    table = pd.read_csv(study / "manifest.csv")
    order = np.random.default_rng(3).permutation(len(table))
    aged = np.random.default_rng(4).normal(size=(len(table), 6))
    aged[:, 2] = table["age_years"] / 5
    scans = list(table["scan_id"].iloc[order])
    crossfit = write_crossfit(study / "crossfit", scans, aged[order])
    store = ["--manifest", study / "manifest.csv", "--semantics", study / "semantics.zarr"]
    result = run("brain-age", *store, "--crossfit", crossfit, "--out", study / "out")
    assert result.exit_code == 0, (result.output, result.exception)
    metrics = BrainAgeMetrics.model_validate_json((study / "out" / "metrics.json").read_text())
    assert metrics.crossfit
    expected, rows = brain_age(aged.astype(np.float32), table, ProbeParams(), crossfit=True)
    assert metrics.error.value == pytest.approx(expected.error.value, rel=1e-6)
    written = pd.read_csv(study / "out" / "brain_age.csv")
    np.testing.assert_allclose(written["predicted"], rows["predicted"], rtol=1e-6)
    own = run("brain-age", *store, "--out", study / "own")
    assert own.exit_code == 0
    without = BrainAgeMetrics.model_validate_json((study / "own" / "metrics.json").read_text())
    assert not without.crossfit
    assert metrics.error.value < 0.5 * without.error.value


def test_scanner_judges_the_codes_of_networks_that_never_saw_the_person(study):
    table = pd.read_csv(study / "manifest.csv")
    order = np.random.default_rng(3).permutation(len(table))
    codes = np.random.default_rng(4).normal(size=(len(table), 6))
    codes[:, 3] = 9 * (table["site"] == "scanner1")
    scans = list(table["scan_id"].iloc[order])
    crossfit = write_crossfit(study / "crossfit", scans, codes[order])
    store = ["--manifest", study / "manifest.csv", "--semantics", study / "semantics.zarr"]
    few = "--set=probe.permutations=9"
    result = run("scanner", *store, "--crossfit", crossfit, "--out", study / "out", few)
    assert result.exit_code == 0, (result.output, result.exception)
    numbers = pd.read_csv(study / "out" / "numbers.csv")
    assert numbers["site"].idxmax() == 3


def test_a_crossfitting_of_another_model_is_refused_and_an_empty_one_counts_as_none(study):
    table = pd.read_csv(study / "manifest.csv")
    codes, scans = np.ones((len(table), 6)), list(table["scan_id"])
    store = ["--manifest", study / "manifest.csv", "--semantics", study / "semantics.zarr"]
    other = write_crossfit(study / "other", scans, codes, ldae="another")
    wrong = run("brain-age", *store, "--crossfit", other, "--out", study / "out")
    assert isinstance(wrong.exception, ContractError)
    assert "of another LDAE" in str(wrong.exception)
    fewer = write_crossfit(study / "fewer", scans[1:], codes[1:])
    wrong = run("brain-age", *store, "--crossfit", fewer, "--out", study / "out")
    assert f"1 scans not in the store, first {scans[0]}" in str(wrong.exception)
    empty = study / "empty"
    empty.mkdir()
    (empty / "crossfit.json").write_text(CrossfitResult(folds=0).model_dump_json())
    result = run(
        "brain-age", *store, "--crossfit", empty / "semantics.zarr", "--out", study / "out"
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert not json.loads((study / "out" / "metrics.json").read_text())["crossfit"]


def test_what_cannot_be_done_is_one_line(study):
    store = ["--manifest", study / "manifest.csv", "--semantics", study / "semantics.zarr"]
    out = ["--out", study / "out"]
    wrong = run("brain-age", *store, *out, "--reference", "CN")
    assert isinstance(wrong.exception, ParamsError)
    assert "expected column:value" in str(wrong.exception)
    wrong = run("scanner", *store, *out, "--site", "hospital")
    assert isinstance(wrong.exception, ContractError)
    wrong = run("scanner", *store, *out, "--probe", study / "none")
    assert "run `pipeline probe`" in str(wrong.exception)
