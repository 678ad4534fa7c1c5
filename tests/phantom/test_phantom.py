"""The phantom cohort: reproducible, valid, and true to what it says."""

import csv
import gzip
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.phantom.anatomy import CAUSES
from pipeline.phantom.atlas import Atlas
from pipeline.phantom.cohort import TRUTH_COLUMNS, make_phantom_cohort
from pipeline.phantom.grid import BRAIN, MapGrid, exponential, sample
from pipeline.phantom.scanner import make_shape, scan, true_volumes
from pipeline.phantom.subjects import Visit, make_subject, make_visits
from schemas.manifest import VOLUMES
from schemas.params import PhantomParams
from tests.support.phantoms import TINY


def digests(root: Path) -> dict[str, str]:
    """Return the sha256 of every file below root."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def rows(path: Path) -> list[dict[str, str]]:
    """Return a TSV's rows."""
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def visit() -> Visit:
    return make_visits(make_subject(1, TINY))[0]


# Flows


def test_a_uniform_flow_is_a_shift():
    grid = MapGrid((-3.0, 5.0, 0.0), 2.0, (27, 28, 29))
    velocity = torch.zeros(3, *grid.shape)
    velocity[1] = 1.5
    flow = exponential(velocity, grid, grid.points())
    inner = flow[:, 5:-5, 5:-5, 5:-5]
    torch.testing.assert_close(inner, velocity[:, 5:-5, 5:-5, 5:-5])


def test_a_map_is_read_where_its_coordinates_say():
    grid = MapGrid((-7.0, 3.0, 11.0), 1.5, (7, 8, 9))
    points = grid.points()
    torch.testing.assert_close(
        sample(points.movedim(-1, 0).contiguous(), grid, points).movedim(0, -1), points
    )


def jacobian(displacement: torch.Tensor, zooms: float) -> torch.Tensor:
    """Return the Jacobian determinant of identity + displacement (central differences)."""
    gradient = torch.stack(torch.gradient(displacement, spacing=zooms, dim=(1, 2, 3)), dim=-1)
    return torch.linalg.det(gradient.permute(1, 2, 3, 0, 4) + torch.eye(3))


def test_the_jacobian_of_a_linear_map_is_its_determinant():
    grid = MapGrid((0.0, 0.0, 0.0), 2.0, (7, 8, 9))
    matrix = torch.tensor([[1.1, 0.2, 0.0], [0.0, 0.9, -0.1], [0.05, 0.0, 1.2]])
    points = grid.points()
    displacement = (points @ matrix.T - points).movedim(-1, 0)
    torch.testing.assert_close(
        jacobian(displacement, 2.0), torch.linalg.det(matrix).expand(grid.shape)
    )


@pytest.mark.slow
@pytest.mark.parametrize("cause", CAUSES)
def test_no_change_folds_the_brain(atlas: Atlas, cause: str):
    # Stronger than any subject's: amplitudes of a severe case at 90 years.
    strongest = {"ventricle": 5.0, "sex": 0.2}.get(cause, 4.0)
    flow = exponential(-strongest * atlas.velocities[cause], BRAIN, BRAIN.points())
    assert jacobian(flow, BRAIN.zooms).min() > 0


@pytest.mark.slow
def test_subjects_are_diffeomorphic_to_the_template(atlas: Atlas, visit: Visit):
    shape = make_shape(visit, atlas)
    points = BRAIN.points()
    inside = slice(8, -8)
    displacement = (shape.to_template(points) - points).movedim(-1, 0)[:, inside, inside, inside]
    determinants = jacobian(displacement, BRAIN.zooms)
    assert determinants.min() > 0
    assert determinants.max() < 6


# Truth


@pytest.mark.slow
def test_ventricles_grow_and_grey_matter_shrinks_with_atrophy(atlas: Atlas):
    subject = replace(make_subject(3, TINY), months=(0,))
    course = []
    for atrophy in (0.0, 0.5, 1.0, 1.5):
        visit = make_visits(replace(subject, atrophy=atrophy))[0]
        course.append(true_volumes(visit, make_shape(visit, atlas), atlas))
    ventricles = np.diff([v["ventricle_mm3"] for v in course])
    assert (ventricles > 3000).all(), "ml a step"
    for shrinking in ("gray_matter_mm3", "medial_temporal_mm3"):
        assert (np.diff([v[shrinking] for v in course]) < 0).all()
    brain = [v["brain_mm3"] for v in course]
    assert max(brain) / min(brain) < 1.02, "the skull does not change"


def test_time_course_is_not_linear():
    params = PhantomParams(subjects=1, multi_visit_share=1.0)
    subject = replace(make_subject(1, params), months=(0, 12, 24), progression=0.5)
    atrophy = [visit.atrophy for visit in make_visits(subject)]
    assert atrophy[2] - atrophy[1] > 1.5 * (atrophy[1] - atrophy[0])


@pytest.mark.slow
def test_true_volumes_match_the_rendered_mask(atlas: Atlas, visit: Visit):
    shape = make_shape(visit, atlas)
    volumes = true_volumes(visit, shape, atlas)
    _, affine, mask = scan(visit, shape, atlas, zooms=4.0)
    rendered = mask.sum() * abs(np.linalg.det(affine[:3, :3]))
    assert rendered == pytest.approx(volumes["brain_mm3"], rel=0.01)
    # Coarser voxels blur the maps; the truth must not depend on them.
    assert volumes["ventricle_mm3"] > 10_000


@pytest.mark.slow
def test_truth_tells_diagnosis_and_age(atlas: Atlas):
    params = PhantomParams(subjects=40)
    visits = [make_visits(make_subject(number, params))[0] for number in range(1, 41)]
    truths = [true_volumes(visit, make_shape(visit, atlas), atlas) for visit in visits]
    table = np.array([[truth[name] for name in VOLUMES] for truth in truths])
    diagnosis = np.array([visit.diagnosis for visit in visits])
    chosen = np.isin(diagnosis, ("CN", "AD"))
    columns = [VOLUMES.index(n) for n in ("ventricle_mm3", "gray_matter_mm3", "brain_mm3")]
    scores = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression()),
        table[chosen][:, columns],
        diagnosis[chosen] == "AD",
        cv=5,
        method="decision_function",
    )
    assert roc_auc_score(diagnosis[chosen] == "AD", scores) >= 0.95
    ages = np.array([visit.age_years for visit in visits])
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13)))
    error = np.abs(cross_val_predict(ridge, table, ages, cv=5) - ages).mean()
    assert error <= 0.5 * np.abs(ages - ages.mean()).mean()


# People


@pytest.mark.slow
def test_a_subject_does_not_depend_on_the_size_of_the_cohort(tmp_path: Path, dataset: Path):
    alone = make_phantom_cohort(tmp_path, TINY.model_copy(update={"subjects": 1}))
    image = "sub-001/ses-M00/anat/sub-001_ses-M00_T1w.nii.gz"
    assert digests(alone)[image] == digests(dataset)[image]


def test_another_seed_gives_other_people():
    first, second = (make_subject(7, PhantomParams(seed=seed)) for seed in (0, 1))
    assert first.seed != second.seed
    assert first.age_years != second.age_years


def test_the_cohort_is_mixed():
    params = PhantomParams(subjects=400, multi_visit_share=0.3)
    people = [make_subject(number, params) for number in range(1, 401)]
    shares = {d: np.mean([p.diagnosis == d for p in people]) for d in ("CN", "MCI", "AD")}
    assert shares == pytest.approx({"CN": 0.4, "MCI": 0.25, "AD": 0.35})
    assert np.mean([p.sex == "F" for p in people]) == pytest.approx(0.5, abs=0.08)
    ages = np.array([p.age_years for p in people])
    assert ages.min() >= 55
    assert ages.max() <= 90
    # Age must not give the diagnosis away.
    assert abs(np.corrcoef(ages, [p.diagnosis == "AD" for p in people])[0, 1]) < 0.2
    returning = [p for p in people if len(p.months) > 1]
    assert len(returning) == pytest.approx(120, abs=3)
    assert all(p.months[0] == 0 for p in people)
    visits = [make_visits(p) for p in returning]
    converters = [v for v in visits if v[0].diagnosis == "MCI" and v[-1].diagnosis == "AD"]
    assert converters, "some MCI become AD"


# Files


@pytest.mark.slow
def test_the_dataset_is_bids_and_says_that_it_is_synthetic(dataset: Path):
    description = json.loads((dataset / "dataset_description.json").read_text())
    assert "SYNTHETIC" in description["Name"]
    people = rows(dataset / "participants.tsv")
    assert [p["participant_id"] for p in people] == ["sub-001", "sub-002"]
    assert {"age", "sex", "diagnosis"} <= set(people[0])
    sessions = rows(dataset / "sub-001" / "sub-001_sessions.tsv")
    assert [s["session_id"] for s in sessions] == ["ses-M00"]
    truth = rows(dataset / "derivatives" / "truth" / "truth.tsv")
    assert tuple(truth[0]) == TRUTH_COLUMNS
    images = sorted(dataset.glob("sub-*/ses-*/anat/*_T1w.nii.gz"))
    assert [image.name for image in images] == [f"{t['scan_id']}_T1w.nii.gz" for t in truth]


@pytest.mark.slow
def test_images_are_int16_heads_with_agreeing_affines(dataset: Path):
    for path in dataset.glob("sub-*/ses-*/anat/*_T1w.nii.gz"):
        image = nib.load(path)
        assert image.get_data_dtype() == np.int16
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        np.testing.assert_allclose(image.header.get_zooms(), 4.0, rtol=1e-5)
        data = image.get_fdata()
        corners = data[tuple(np.ix_(*((0, -1) for _ in range(3))))]
        truth = dataset / "derivatives" / "truth" / path.parent.relative_to(dataset)
        name = path.name.replace("_T1w", "_desc-brain_mask")
        brain = nib.load(truth / name).get_fdata() > 0
        assert np.median(corners) < 0.1 * data[brain].mean(), "air around the head"
        scalp = data[~brain]
        assert np.percentile(scalp, 99) > data[brain].mean(), "bright fat outside the brain"


@pytest.mark.slow
def test_a_damaged_scan_is_made_again_and_the_others_are_kept(tmp_path: Path, dataset: Path):
    dataset = shutil.copytree(dataset, tmp_path / "bids")
    before = digests(dataset)
    broken = dataset / "sub-002" / "ses-M00" / "anat" / "sub-002_ses-M00_T1w.nii.gz"
    kept = dataset / "sub-001" / "ses-M00" / "anat" / "sub-001_ses-M00_T1w.nii.gz"
    stamp = kept.stat().st_mtime_ns
    broken.write_bytes(broken.read_bytes()[:1000])
    make_phantom_cohort(dataset, TINY)
    assert digests(dataset) == before
    assert kept.stat().st_mtime_ns == stamp
    assert gzip.decompress(kept.read_bytes())[344:347] == b"n+1"


@pytest.mark.slow
def test_workers_write_the_same_bytes(tmp_path: Path, dataset: Path):
    make_phantom_cohort(tmp_path, TINY, workers=2)
    assert digests(tmp_path) == digests(dataset)
