"""`pipeline regions` from the command line: what it writes, and what it refuses."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline.regions.cases import first_and_last_visits, named_visits
from schemas.errors import ContractError


@pytest.fixture
def visits():
    rows = [
        ("a0", "a", 0.0),
        ("a1", "a", 12.0),
        ("b0", "b", 0.0),
        ("c0", "c", 6.0),
        ("c1", "c", 6.0),
    ]
    return pd.DataFrame(rows, columns=["scan_id", "subject_id", "months_from_first"])


def test_made_volumes_are_compared_with_their_own(run_pipeline, made, atlas_files, tmp_path):
    out = tmp_path / "regions"
    code, text = run_pipeline(
        "regions", "--made", made, "--atlas", atlas_files[0], "--labels", atlas_files[1],
        "--no-own-regions", "--maps", "--out", out,
    )  # fmt: skip
    assert code == 0, text
    assert "shrinks -" in text
    assert "not shown to beat chance" in text
    metrics = json.loads((out / "metrics.json").read_text())
    effect = metrics["groups"]["scale +1"]["shrinks"]
    assert effect["people"] == 2
    assert effect["volume_percent"]["value"] < -5
    changes = pd.read_csv(out / "changes.csv")
    assert changes["scan_id"].nunique() == 2
    assert len(pd.read_csv(out / "regions.csv")) == changes["region"].nunique()
    table = (out / "regions.tex").read_text()
    assert "shrinks" in table
    assert table.startswith("% diagnosis:AD: the probe is not shown to beat chance")
    assert (out / "scale_+1_glass.png").stat().st_size > 10_000
    assert (out / "scale_+1_slices.png").stat().st_size > 10_000
    image = nib.load(out / "maps" / "sub-1_ses-M00_scale_+1_space-mni_volume-percent.nii.gz")
    assert np.asarray(image.dataobj).min() < -5


def test_scale_0_is_needed(run_pipeline, made, atlas_files, tmp_path):
    path = made / "sub-1_ses-M00_manipulate.json"
    document = json.loads(path.read_text())
    document["outputs"] = document["outputs"][1:]
    path.write_text(json.dumps(document))
    code, text = run_pipeline(
        "regions", "--made", made, "--atlas", atlas_files[0], "--labels", atlas_files[1],
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    assert "made without scale 0" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --made, or --volumes and --manifest"),
        (["--made", "x", "--space", "native"], "give the --volumes that know the way back"),
        (["--manifest", "m", "--volumes", "v", "--a", "s"], "two visits are needed"),
        (["--made", "x", "--atlas", "y.nii.gz"], "an atlas needs its table"),
    ],
)
def test_what_is_missing_is_named(run_pipeline, options, message, tmp_path):
    code, text = run_pipeline("regions", *options, "--out", tmp_path / "out")
    assert code == 2
    assert message in text


def test_first_and_last_visits_are_paired(visits):
    pairs, left_out = first_and_last_visits(visits, visits["scan_id"].tolist())
    assert [(a["scan_id"], b["scan_id"]) for a, b in pairs] == [("a0", "a1")]
    assert left_out == {"b": "one dated visit, two are needed", "c": "all visits on one day"}
    with pytest.raises(ContractError, match="nobody has two dated visits"):
        first_and_last_visits(visits, ["b0", "c0"])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("a1", "a0", "12 months after --b a0; give the earlier as --a"),
        ("c0", "c1", "on one day"),
        ("a0", "b0", "of a and b; expected two visits of one person"),
        ("a0", "x", "x: not in both the manifest and the volumes"),
    ],
)
def test_wrong_pairs_of_visits_are_refused(visits, first, second, message):
    with pytest.raises(ContractError, match=message):
        named_visits(visits, visits["scan_id"].tolist(), first, second)
