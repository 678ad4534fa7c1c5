"""The three commands from a store to their files, one after the other."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.stores.builder import ArraySpec, StoreBuilder
from pipeline.stores.open_store import OpenStore
from schemas.errors import ContractError, ParamsError
from schemas.stores import StoreAttributes
from stages.cli import app
from tests.support.volumes import SHAPE


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


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
    attributes = StoreAttributes(
        kind="semantics",
        made_by="test",
        params={},
        digests={"ldae": "test"},
        grid={"shape": list(SHAPE), "affine": np.eye(4).tolist(), "orientation": "RAS"},
        scan_ids=list(table["scan_id"]),
        fingerprints=list(table["scan_id"]),
    )
    array = ArraySpec(
        name="y_sem",
        row_shape=(6,),
        dtype="float32",
        dimension_names=("feature",),
        rows_per_chunk=100,
        fill_value=0.0,
        compressors=(),
    )
    builder = StoreBuilder(tmp_path / "semantics.zarr", attributes, [array], unit_rows=100)
    for unit in builder.pending():
        builder.write(unit, {"y_sem": np.array(codes, dtype=np.float32)})
    builder.finish()
    assert "y_sem" in OpenStore(tmp_path / "semantics.zarr", kind="semantics").group
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
