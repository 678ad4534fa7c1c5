"""What the page reads of a study; what is missing becomes a sentence."""

import shutil

import numpy as np
import pandas as pd
import pytest

from pipeline.explore.answers import Unseen, answers, conformal_reach, unseen_people
from pipeline.explore.directions import study_directions
from pipeline.explore.layouts import available_layouts, lay_out
from pipeline.explore.study import ExplorePaths, label_of, open_study
from pipeline.models.direction import Direction, Readout
from pipeline.probes.applied import SavedProbe
from schemas.errors import ContractError, ParamsError
from tests.support.explore_study import HOSTILE, TOWARDS


@pytest.fixture
def copied(tmp_path, study_folder):
    """A copy whose files can be taken away."""
    return shutil.copytree(study_folder, tmp_path / "study", symlinks=True)


def opened(folder):
    return open_study(ExplorePaths.of_folder(folder), title="t")


def test_a_whole_study_has_labels_and_no_notes(study_folder):
    study = opened(study_folder)
    assert study.notes == []
    assert not study.phantom
    assert study.y_sem.shape == (20, 12)
    names = [label.name for label in study.labels()]
    assert names == ["diagnosis", "age_years", "sex", "site", "split", "months_from_first"]
    diagnosis, age = study.labels()[:2]
    assert diagnosis.groups == ["AD", "CN"]
    assert [diagnosis.groups[code] for code in diagnosis.codes[:2]] == ["CN", "AD"]
    assert age.numbers[:2] == [60.0, 61.0]
    assert HOSTILE in study.labels()[3].groups


def test_columns_that_tell_nobody_apart_are_no_colours():
    assert label_of(pd.Series(["x"] * 5, name="a")) is None
    assert label_of(pd.Series(map(str, range(50)), name="a")) is None
    assert label_of(pd.Series([1.0, 1.0, np.nan], name="a")) is None
    partly = label_of(pd.Series(["a", None, "b", ""], name="a"))
    assert partly.codes == [0, -1, 1, -1]
    assert label_of(pd.Series([1.0, 2.0, np.nan], name="a")).numbers == [1.0, 2.0, None]


def test_without_probes_there_are_points_and_a_sentence(copied):
    shutil.rmtree(copied / "reports")
    study = opened(copied)
    assert study_directions(study, None).documents == []
    assert [note for note in study.notes if "pipeline probe" in note]


def test_directions_of_another_ldae_are_a_sentence(copied):
    path = copied / "reports" / "probe" / "directions.json"
    digest = opened(copied).ldae_digest
    path.write_text(path.read_text().replace(digest, "0" * 64))
    study = opened(copied)
    assert study_directions(study, None).documents == []
    assert "another LDAE" in study.notes[0]


def test_without_codes_there_is_no_map_and_a_sentence(copied):
    shutil.rmtree(copied / "data" / "semantics.zarr")
    study = opened(copied)
    assert study.y_sem is None
    assert "semantics.zarr: not there" in study.notes[0]
    assert "run `pipeline embed`" in study.notes[0]
    assert study_directions(study, None).documents == []


def test_without_any_store_it_is_refused_in_one_line(copied):
    shutil.rmtree(copied / "data" / "semantics.zarr")
    (copied / "data" / "volumes.zarr").unlink()
    with pytest.raises(ContractError, match=r"none of its scans .*; run `dvc repro`"):
        opened(copied)


def test_directions_come_with_place_answer_and_doubt(study_folder):
    study = opened(study_folder)
    found = study_directions(study, None)
    first = found.documents[0]
    assert first["name"] == TOWARDS
    assert first["positions"][3] == pytest.approx(
        found.by_name[TOWARDS].position(study.y_sem)[3], abs=1e-4
    )
    assert first["answer"]["classes"] == ("CN", "AD")
    # Volumes of noise, few people: no probe of their age is shown to beat chance.
    (age,) = [d for d in found.documents if d["target"] == "age_years"]
    assert "not shown to beat chance" in age["doubt"]
    assert "people left out" in age["figure"]


def test_principal_components_are_those_of_the_codes():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1]
    codes[7] = np.nan
    layout = lay_out(codes, "pca")
    assert np.isnan(layout.places[7]).all()
    known = np.delete(codes, 7, axis=0)
    known -= known.mean(axis=0)
    values = np.linalg.eigvalsh(known.T @ known)[::-1]
    found = np.delete(layout.places, 7, axis=0)
    assert (found**2).sum(axis=0) == pytest.approx(values[:2])
    assert f"{values[0] / values.sum():.0%}" in layout.axes[0]
    with pytest.raises(ParamsError, match="expected one of"):
        lay_out(codes, "../etc")


@pytest.mark.parametrize("scans", [1, 2, 4])
def test_few_scans_lie_on_a_map_of_components_alone(scans):
    codes = np.random.default_rng(0).normal(size=(scans, 6))
    layout = lay_out(codes, "pca")
    assert layout.places.shape == (scans, 2)
    assert np.isfinite(layout.places).all()
    apart = np.linalg.norm(codes[0] - codes[-1])
    if scans == 2:
        assert np.linalg.norm(layout.places[0] - layout.places[-1]) == pytest.approx(apart)
    assert available_layouts(codes) == ["pca"]
    with pytest.raises(ParamsError, match=f"of these {scans} scans with y_sem, .* pca"):
        lay_out(codes, "tsne")


def test_scans_that_are_all_alike_have_one_place():
    codes = np.ones((30, 6))
    assert available_layouts(codes) == ["pca"]
    assert np.allclose(lay_out(codes, "pca").places, 0)
    assert available_layouts(np.full((30, 6), np.nan)) == []
    assert available_layouts(None) == []


def test_a_code_of_one_number_is_a_line():
    layout = lay_out(np.arange(6.0)[:, None], "pca")
    assert np.allclose(np.abs(layout.places[:, 0]), np.abs(np.arange(6) - 2.5))
    assert np.allclose(layout.places[:, 1], 0)


def test_neighbours_stay_neighbours_in_tsne():
    rng = np.random.default_rng(1)
    codes = np.concatenate([rng.normal(size=(12, 8)), 30 + rng.normal(size=(12, 8))])
    places = lay_out(codes, "tsne").places
    inside = np.linalg.norm(places[:12] - places[:12].mean(axis=0), axis=1).max()
    assert np.linalg.norm(places[:12].mean(axis=0) - places[12:].mean(axis=0)) > inside
    assert np.array_equal(places, lay_out(codes, "tsne").places)


def probe(kind, classes=None):
    direction = Direction(
        weight=np.array([1.0, 0]),
        mean=np.array([2.0, 0]),
        std=np.array([3.0, 1]),
        spread=2.0,
        towards="a",
    )
    return SavedProbe("a", direction, Readout(kind=kind, slope=0.5, intercept=1.0, classes=classes))


def test_a_number_has_the_interval_that_holds_nine_of_ten_errors():
    errors = np.arange(1.0, 41)
    assert conformal_reach(errors) == 37  # ceil(41 * 0.9)
    assert conformal_reach(errors[:3]) == 3
    unseen = Unseen(truth=errors, score=np.zeros(40))
    found = answers(probe("regression"), unseen)
    middle = found["places"].index(0.0)
    assert found["value"][middle] == pytest.approx(1.0)
    assert found["value"][middle + 4] == pytest.approx(
        1.0 + 0.5 * 2.0 * found["places"][middle + 4]
    )
    assert (found["low"][middle], found["high"][middle]) == (-36, 38)


def test_a_yes_has_the_share_of_yes_among_the_most_alike():
    score = np.linspace(0, 1, 100)
    unseen = Unseen(truth=(score > 0.5).astype(float), score=score)
    found = answers(probe("classification", ("no", "yes")), unseen)
    assert found["share"][0] == 0
    assert found["share"][-1] == 1
    assert found["low"][0] == 0 < found["high"][0] < 0.3
    few = answers(probe("classification", ("no", "yes")), None)
    assert "share" not in few
    assert "fewer than 10" in few["interval"]


def test_people_left_out_count_once():
    rows = [
        {"subject_id": f"s{i}", "truth": 1.0, "score": float(k), "protocol": "cv", "repeat": k}
        for i in range(12)
        for k in (0, 1)
    ]
    rows += [rows[0] | {"protocol": "test"}]
    table = pd.DataFrame(rows).assign(target="a", feature_set="y_sem")
    found = unseen_people(table, "a")
    assert len(found.truth) == 12
    assert set(found.score) == {0.0}
    assert unseen_people(table[:6], "a") is None
    assert unseen_people(None, "a") is None
