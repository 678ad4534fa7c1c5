"""Options of the phantom cohort: overlapping disease and sex, one dark spot, shared scanners."""

import csv
import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.phantom.cohort import make_phantom_cohort
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.scanner import FOCAL_CENTRE, make_shape, scan, tissue_signal
from pipeline.phantom.scanner_models import make_scanner
from pipeline.phantom.subjects import Visit, make_subject, make_visits
from schemas.grid import GridParams
from schemas.params import PhantomParams

USUAL = "8448f325408f5d2f4fdc45ef8a468a781b899d773a1090ac671a68088913da44"
"""sha256 of forty people as they were before there were options, to six digits: processors differ
in the last ones."""


def rounded(numbers: dict[str, float]) -> list[tuple[str, str]]:
    return sorted((name, f"{value:.6g}") for name, value in numbers.items())


def people(count: int, **options) -> list[Visit]:
    params = PhantomParams(**options)
    return [make_visits(make_subject(number, params))[0] for number in range(1, count + 1)]


def auc_of(visits: list[Visit]) -> float:
    chosen = [v for v in visits if v.diagnosis in ("CN", "AD")]
    return roc_auc_score([v.diagnosis == "AD" for v in chosen], [v.atrophy for v in chosen])


def test_without_options_people_are_as_they_always_were():
    params = PhantomParams(multi_visit_share=0.5)
    told = [
        (v.scan_id, f"{v.atrophy:.6g}", v.diagnosis, rounded(v.amplitudes), v.seed)
        for number in range(1, 41)
        for v in make_visits(make_subject(number, params))
    ]
    assert hashlib.sha256(repr(told).encode()).hexdigest() == USUAL


def test_overlapping_severity_has_the_auc_that_the_parameter_promises():
    assert auc_of(people(2000, overlap=True)) == pytest.approx(0.85, abs=0.02)
    assert auc_of(people(500)) == 1


def test_overlapping_sexes_have_the_auc_that_the_parameter_promises():
    visits = people(2000, sex_overlap=True)
    men = [v.subject.sex == "M" for v in visits]
    size = np.log([v.subject.size for v in visits])
    shape = np.array([v.amplitudes["sex"] for v in visits])
    assert roc_auc_score(men, size) == pytest.approx(0.79, abs=0.02)
    # Both are normal with one spread a sex, and independent within a sex: this sum is the best.
    both = np.log(0.957 / 0.925) * size + 2 * 0.018 * shape
    assert roc_auc_score(men, both) == pytest.approx(0.88, abs=0.02)
    assert abs(np.corrcoef(size, [v.atrophy for v in visits])[0, 1]) < 0.06


def test_the_dark_spot_tells_nothing_of_anything_else():
    visits = people(1000, focal=0.2)
    dark = [bool(v.subject.focal) for v in visits]
    assert np.mean(dark) == pytest.approx(0.5, abs=0.05)
    for other in ("age_years", "atrophy"):
        auc = roc_auc_score(dark, [getattr(v, other) for v in visits])
        assert auc == pytest.approx(0.5, abs=0.06)
    assert people(1)[0].subject.focal is None


@pytest.mark.slow
def test_the_dark_spot_is_where_it_is_said_to_be(atlas):
    visit = people(1, focal=0.2)[0]
    axis = [torch.arange(c - 36, c + 40, 4.0) for c in FOCAL_CENTRE]
    points = torch.stack(torch.meshgrid(*axis, indexing="ij"), dim=-1)
    with_spot, without = (
        tissue_signal(
            points,
            replace(visit, subject=replace(visit.subject, focal=focal)),
            atlas,
            np.random.default_rng(0),
        )
        for focal in (0.2, 0.0)
    )
    lost = (without - with_spot) / without.clamp(min=1e-6)
    distance = (points - torch.tensor(FOCAL_CENTRE)).norm(dim=-1)
    assert lost[distance < 1].item() == pytest.approx(0.2, abs=1e-3)
    assert lost[distance > 22].abs().max() < 1e-3


def test_scanners_are_shared_in_turn_and_travellers_see_all_of_them():
    params = PhantomParams(subjects=6, scanners=3, travelling=2, multi_visit_share=0)
    visits = {n: make_visits(make_subject(n, params)) for n in range(1, 7)}
    sites = {n: [v.scanner.name for v in vs] for n, vs in visits.items()}
    assert sites[1] == ["scanner1", "scanner2", "scanner3"]
    assert sites[2] == ["scanner2", "scanner1", "scanner3"]
    assert [sites[n] for n in (3, 4, 5, 6)] == [["scanner3"], *([f"scanner{i}"] for i in (1, 2, 3))]
    first = visits[1]
    assert len({v.seed for v in first}) == len({v.scan_id for v in first}) == 3
    assert {v.months for v in first} == {0}
    assert len({tuple(v.amplitudes.values()) for v in first}) == 1
    assert visits[1][0].scanner == visits[2][1].scanner
    # The person is the one that a cohort without scanners has.
    assert first[0].amplitudes == people(1, multi_visit_share=0)[0].amplitudes


def test_nobody_travels_without_a_second_scanner():
    with pytest.raises(ValidationError, match="set scanners to 2 or more"):
        PhantomParams(travelling=3, scanners=1)


@pytest.mark.slow
def test_a_scanner_does_to_an_image_what_it_says(atlas):
    params = PhantomParams(scanners=2, travelling=1, multi_visit_share=0)
    visit = make_visits(make_subject(1, params))[0]
    plain = replace(
        make_scanner(1, 0), contrast=0.0, noise=1.0, blur=0.0, gradients=(1.0, 1.0, 1.0)
    )
    shape = make_shape(visit, atlas)

    def made(scanner):
        moved = replace(visit, subject=replace(visit.subject, scanner=scanner))
        image, _, mask = scan(moved, shape, atlas, zooms=4.0)
        return image.astype(float), mask > 0

    image, mask = made(plain)
    _, longer = made(replace(plain, gradients=(1.03, 1.0, 1.02)))
    assert longer.sum() / mask.sum() == pytest.approx(1.03 * 1.02, abs=0.005)
    blurred, _ = made(replace(plain, blur=4.0))
    assert blurred[mask].std() < 0.9 * image[mask].std()
    noisy, _ = made(replace(plain, noise=3.0))
    air = ~mask & (image < np.percentile(image, 20))
    assert noisy[air].mean() > 2 * image[air].mean()
    grey, _ = made(replace(plain, contrast=0.1))
    assert np.percentile(grey[mask], 30) > 1.02 * np.percentile(image[mask], 30)


@pytest.mark.slow
def test_drawn_travellers_look_more_like_themselves_than_like_others():
    params = PhantomParams(scanners=2, travelling=2, multi_visit_share=0)
    phantoms = RegisteredPhantoms(mni_grid(GridParams(shape=(56, 72, 64), zooms=3.0)))
    one, two = (make_visits(make_subject(number, params)) for number in (1, 2))
    a, again, other = (phantoms.draw(v).astype(float) for v in (one[0], one[1], two[1]))
    assert not np.array_equal(a, again)
    assert np.square(a - again).mean() < 0.5 * np.square(a - other).mean()


@pytest.mark.slow
def test_a_cohort_names_its_scanners_and_who_has_the_dark_spot(tmp_path, atlas):
    params = PhantomParams(
        subjects=2, zooms=4.0, multi_visit_share=0, scanners=2, travelling=1, focal=0.2
    )
    out = make_phantom_cohort(tmp_path, params)
    with (out / "derivatives" / "truth" / "truth.tsv").open() as file:
        rows = {row["scan_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert {name: row["site"] for name, row in rows.items()} == {
        "sub-001_ses-M00": "scanner1",
        "sub-001_ses-M00scanner2": "scanner2",
        "sub-002_ses-M00": "scanner2",
    }
    assert rows["sub-001_ses-M00"]["brain_mm3"] == rows["sub-001_ses-M00scanner2"]["brain_mm3"]
    assert {row["focal"] for row in rows.values()} <= {"yes", "no"}
    sessions = (out / "sub-001" / "sub-001_sessions.tsv").read_text()
    assert sessions.splitlines()[0].split("\t")[-2:] == ["site", "focal"]
