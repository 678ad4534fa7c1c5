"""Studies with damaged, odd or few files: a page with sentences, never a crash or a blank page."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from pipeline.explore.brains import BrainRequest
from pipeline.explore.directions import study_directions
from pipeline.explore.server import ExploreServer, layout_document
from pipeline.explore.study import ExplorePaths, open_study
from tests.support.explore_study import TOWARDS
from tests.support.volumes import OTHER, SCAN


@pytest.fixture
def copied(tmp_path, study_folder):
    """A copy whose files can be changed, but for the stores that are links."""
    return shutil.copytree(study_folder, tmp_path / "study", symlinks=True)


def strict(document):
    """Return a document as a browser reads it: NaN is no JSON."""
    return json.loads(json.dumps(document, allow_nan=False))


def entry(document):
    return document["directions"]["diagnosis"]


def change(**values):
    return lambda document: entry(document).update(values)


def change_probe(**values):
    return lambda document: entry(document)["probe"].update(values)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change(spread=0.0), "expected finite numbers, and spreads above 0"),
        (change(spread=float("nan")), "expected finite numbers"),
        (change(weight=[float("inf")] * 12), "expected finite numbers"),
        (change(std=[0.0] * 12), "spreads above 0"),
        (change(mean=[0.0] * 3), "has weight 12, mean 3, std 12"),
        (change(mean="x"), "is incomplete"),
        (lambda document: entry(document).pop("towards"), "expected directions.json"),
        (lambda document: document.update(directions=[1]), "expected directions.json"),
        (lambda document: document.update(directions={"a": 1}), "expected directions.json"),
        (lambda document: document.update(digests=None), "expected directions.json"),
    ],
)
def test_a_damaged_direction_is_a_sentence(copied, damage, words):
    path = copied / "reports" / "probe" / "directions.json"
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    study = open_study(ExplorePaths.of_folder(copied), title="t")
    assert study_directions(study, None).documents == []
    assert words in study.notes[-1]
    assert "\n" not in study.notes[-1]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"a"', "\0", "{}"])
@pytest.mark.parametrize("name", ["directions.json", "metrics.json"])
def test_a_file_of_something_else_is_a_sentence_or_left_out(copied, name, text):
    (copied / "reports" / "probe" / name).write_text(text)
    study = open_study(ExplorePaths.of_folder(copied), title="t")
    found = study_directions(study, None)
    assert study.notes or found.documents
    strict(found.documents)


@pytest.mark.parametrize(
    "damage",
    [
        change_probe(slope=float("nan")),
        change_probe(intercept=float("inf")),
        change_probe(kind="oracle"),
        change_probe(classes=None),
        change_probe(classes=["one"]),
        lambda document: entry(document).update(probe=7),
        lambda document: entry(document).pop("probe"),
    ],
)
def test_a_damaged_probe_leaves_its_direction_without_an_answer(copied, damage):
    path = copied / "reports" / "probe" / "directions.json"
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    study = open_study(ExplorePaths.of_folder(copied), title="t")
    documents = strict(study_directions(study, None).documents)
    assert documents[0]["name"] == TOWARDS
    assert documents[0]["answer"] is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table.drop(columns="repeat"),
        lambda table: table.assign(score="high"),
        lambda table: table.iloc[:, :2],
    ],
)
def test_damaged_predictions_cost_the_intervals_and_are_told(copied, damage):
    path = copied / "reports" / "probe" / "predictions.parquet"
    damage(pd.read_parquet(path)).to_parquet(path)
    study = open_study(ExplorePaths.of_folder(copied), title="t")
    documents = strict(study_directions(study, None).documents)
    assert "low" not in documents[0]["answer"]
    assert "predictions.parquet: not the table of `pipeline probe`" in study.notes[-1]


def test_scores_that_are_missing_do_not_reach_the_page(copied):
    path = copied / "reports" / "probe" / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[table["subject_id"] == table["subject_id"].iloc[0], "score"] = np.nan
    table.to_parquet(path)
    study = open_study(ExplorePaths.of_folder(copied), title="t")
    assert strict(study_directions(study, None).documents)


def keep(folder, scans):
    path = folder / "data" / "cohort" / "manifest.csv"
    table = pd.read_csv(path)
    table[table["scan_id"].isin(scans)].to_csv(path, index=False)


@pytest.mark.parametrize("scans", [[SCAN], [SCAN, OTHER]])
def test_one_or_two_people_make_a_page(copied, open_engine, scans):
    keep(copied, scans)
    engine = open_engine(copied)
    engine.start()
    document = strict(ExploreServer(engine).study_document())
    assert document["scans"] == scans
    assert document["layouts"] == ["pca"]
    assert len(strict(layout_document(engine.study, "pca"))["places"]) == len(scans)
    request = BrainRequest(kind="move", scan=SCAN, direction=TOWARDS, scale=1, quality="preview")
    assert engine.make(request).volume.any()


def test_a_scan_without_y_sem_has_no_place_and_still_moves(open_engine, study_folder):
    engine = open_engine(study_folder)
    row = engine.study.scan_ids.index(SCAN)
    engine.study.y_sem[row] = np.nan
    engine.directions = study_directions(engine.study, None)
    document = strict(engine.directions.documents)
    assert document[0]["positions"][row] is None
    assert strict(layout_document(engine.study, "pca"))["places"][row] is None
    engine.start()
    request = BrainRequest(kind="move", scan=SCAN, direction=TOWARDS, scale=1, quality="preview")
    assert engine.make(request).position is None
