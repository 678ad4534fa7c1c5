"""What is the scanner's is found where it was planted, and odd tables get one line each."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.measurement.repeat_scans import complete_repeats, visit_names
from pipeline.measurement.scanner_effects import judge_scanners
from pipeline.measurement.site_reading import read_site
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.scanner_models import make_scanner
from pipeline.phantom.subjects import Visit, make_subject, make_visits
from pipeline.probes.features import coarsened, fit_pca
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams
from schemas.grid import GridParams
from schemas.params import PhantomParams

PARAMS = ProbeParams(permutations=19, folds=4)


def cohort(people=36, sites=3, travelling=8, shift=1.0, seed=0):
    """Return features (scan, 12) with a planted shift a site, and the table of their scans."""
    rng = np.random.default_rng(seed)
    shifts = shift * rng.normal(size=(sites, 12))
    rows, values = [], []
    for p in range(people):
        own = rng.normal(0, 1, 12)
        scans = [(0, p % sites), (12, p % sites)]
        scans += [(0, s) for s in range(sites) if s != p % sites] if p < travelling else []
        aged = {0: np.zeros(12), 12: rng.normal(0, 0.4, 12)}
        for months, site in scans:
            name = f"sub-{p:02d}_ses-M{months:02d}scanner{site}"
            rows.append((name, f"sub-{p:02d}", "", months, f"site{site}", "test"))
            values.append(own + aged[months] + shifts[site] + rng.normal(0, 0.3, 12))
    columns = ["scan_id", "subject_id", "session_id", "months_from_first", "site", "split"]
    return np.array(values), pd.DataFrame(rows, columns=columns)


def test_a_planted_scanner_is_told_from_none():
    values, table = cohort()
    found = judge_scanners({"y_sem": values}, table, PARAMS, column="site").metrics
    reading = found.reading["y_sem"]
    assert reading.accuracy > 0.8
    assert reading.p == pytest.approx(1 / 20)
    assert reading.on_repeats > 0.6
    assert found.repeated_people == 8
    assert found.shares["y_sem"]["site"] > 0.2
    assert found.agreement.occasions == ["site0", "site1", "site2"]
    none, table = cohort(shift=0.0)
    without = judge_scanners({"y_sem": none}, table, PARAMS, column="site").metrics
    assert without.reading["y_sem"].p > 0.05
    assert without.shares["y_sem"]["site"] < 0.03
    assert without.agreement.quartiles[1] > found.agreement.quartiles[1]
    near, far = (f.distances["y_sem"]["repeat"].value for f in (without, found))
    assert near < far
    assert without.distances["y_sem"]["recognised"].value == 1


@pytest.mark.slow
def test_a_site_that_does_nothing_is_seldom_read():
    small = 0
    for seed in range(40):
        values, table = cohort(people=12, travelling=3, shift=0.0, seed=seed)
        labels = (table[name].to_numpy(dtype=str) for name in ("site", "subject_id"))
        reading = read_site(values, *labels, folds=2, permutations=9, seed=seed)
        small += reading.p <= 0.1
    # At 10 % of 40, nine or more have a chance of 1.5 %.
    assert small <= 8


def test_predictions_agree_as_the_icc_says():
    values, table = cohort()
    rng = np.random.default_rng(5)
    predictions = pd.DataFrame(
        {
            "scan_id": table["scan_id"],
            "target": "age_years",
            "feature_set": "y_sem",
            "protocol": "cv",
            "score": 70 + 5 * values[:, 0] + rng.normal(0, 0.1, len(table)),
        }
    )
    found = judge_scanners(
        {"y_sem": values}, table, PARAMS, column="site", predictions=predictions
    ).metrics
    numbers = judge_scanners({"y_sem": values}, table, PARAMS, column="site").numbers
    assert found.predictions["age_years"].value == pytest.approx(numbers["icc"][0], abs=0.02)
    some = predictions[predictions["scan_id"].str.startswith("sub-00")]
    few = judge_scanners({"y_sem": values}, table, PARAMS, column="site", predictions=some).metrics
    assert "3 on 2 are needed" in few.skipped["predictions/age_years"]


def test_odd_sites_get_a_line_each_and_the_rest_goes_on():
    values, table = cohort()
    table.loc[table["subject_id"] == "sub-30", "site"] = "alone"
    table.loc[0, "site"] = None
    found = judge_scanners({"y_sem": values}, table, PARAMS, column="site").metrics
    assert any(line.startswith("site alone: one person") for line in found.remarks)
    assert any("empty for 1 of" in line for line in found.remarks)
    assert found.reading["y_sem"].sites == 3
    with pytest.raises(ContractError, match="no such column in the manifest"):
        judge_scanners({"y_sem": values}, table, PARAMS, column="hospital")
    with pytest.raises(ContractError, match="expected two sites or more"):
        judge_scanners({"y_sem": values}, table.assign(site="one"), PARAMS, column="site")


def test_a_repeat_of_different_people_is_left_out_with_a_line(tmp_path):
    values, table = cohort(travelling=0)
    first, second = (
        table.loc[table["subject_id"] == f"sub-0{i}", "scan_id"].tolist() for i in (0, 1)
    )
    lines = ["repeat,scan_id", f"good,{first[0]}", f"good,{first[1]}"]
    lines += [f"bad,{first[0]}", f"bad,{second[0]}", f"lone,{second[0]}", "lone,sub-99"]
    path = tmp_path / "repeats.csv"
    path.write_text("\n".join(lines))
    found = judge_scanners({"y_sem": values}, table, PARAMS, column="site", repeats=path).metrics
    told = " ".join(found.remarks)
    assert "repeat bad pairs different people (sub-00, sub-01)" in told
    assert "repeat lone has 1 known scan(s)" in told
    assert found.repeated_people == 1
    path.write_text("pair,scan\n")
    with pytest.raises(ContractError, match="no column repeat, scan_id"):
        judge_scanners({"y_sem": values}, table, PARAMS, column="site", repeats=path)


def test_the_largest_complete_table_is_taken():
    _, table = cohort(people=9, travelling=5)
    table = table[~((table["subject_id"] == "sub-00") & (table["site"] == "site2"))]
    table = table.reset_index(drop=True)
    found = complete_repeats(table, visit_names(table))
    assert found.occasions == ("site0", "site1")
    assert found.people == tuple(f"sub-0{i}" for i in range(5))
    assert (table["site"].to_numpy()[found.rows] == np.array(["site0", "site1"])).all()


STRONG = {
    "scanner1": {"contrast": -0.1, "blur": 0.0},
    "scanner2": {"contrast": 0.0, "blur": 3.0},
    "scanner3": {"contrast": 0.1, "blur": 0.0},
}
"""Effects that are seen on a grid of 6 mm."""


PEOPLE, TRAVELLING = 20, 10


def every_scan() -> tuple[np.ndarray, list[Visit]]:
    """Return two visits, 4 years apart, of all on all scanners (person, visit, scanner, …)."""
    params = PhantomParams(subjects=PEOPLE, scanners=3, multi_visit_share=0)
    phantoms = RegisteredPhantoms(mni_grid(GridParams(shape=(28, 36, 32), zooms=6.0)))
    one = replace(make_scanner(1, 0), contrast=0.0, noise=1.0, blur=0.0)
    scanners = [replace(one, name=name, **effects) for name, effects in STRONG.items()]
    people = [replace(make_subject(n, params), months=(0, 48)) for n in range(1, PEOPLE + 1)]
    visits = [visit for person in people for visit in make_visits(person)]
    scans = [replace(visit, elsewhere=scanner) for visit in visits for scanner in scanners]
    drawn = [coarsened(phantoms.draw(scan) / np.float32(255)).ravel() for scan in scans]
    return np.stack(drawn).reshape(PEOPLE, 2, 3, -1), visits


def true_shares(cube: np.ndarray) -> dict[str, float]:
    """Return the shares by the analysis of variance of (person, visit, scanner, number)."""
    people, visits, sites, _ = cube.shape
    whole = cube.mean(axis=(0, 1, 2))
    person, site = cube.mean(axis=(1, 2)), cube.mean(axis=(0, 1))
    of_visit, both = cube.mean(axis=2), cube.mean(axis=1)
    rest = cube - of_visit[:, :, None] - both[:, None] + person[:, None, None]
    error = np.square(rest).sum() / (people * (visits - 1) * (sites - 1))
    spread = sites * np.square(of_visit - person[:, None]).sum() / (people * (visits - 1))
    pairs = visits * np.square(both - person[:, None] - site + whole).sum()
    pairs /= (people - 1) * (sites - 1)
    between = visits * sites * np.square(person - whole).sum() / (people - 1)
    shifts = people * visits * np.square(site - whole).sum() / (sites - 1)
    parts = {
        "person": (between - spread - pairs + error) / (visits * sites),
        "visit": (spread - error) / sites,
        "site": (shifts - pairs) / (people * visits),
        "person_site": (pairs - error) / visits,
        "scan": error,
    }
    return {part: value / sum(parts.values()) for part, value in parts.items()}


@pytest.mark.slow
def test_travelling_phantoms_show_what_their_scanner_did():
    """The truth is of everybody on every scanner; judged are visits on one, and a few travels."""
    cube, visits = every_scan()
    pca = fit_pca(cube.reshape(-1, cube.shape[-1]))
    numbers = pca.transform(cube.reshape(-1, cube.shape[-1])).reshape(*cube.shape[:3], -1)
    rows, values, alike = [], [], []
    for place, visit in enumerate(visits):
        person, number = divmod(place, 2)
        own = person % 3
        travels = number == 0 and person < TRAVELLING
        for scanner in range(3) if travels else [own]:
            months = float(visit.months)
            name, scan = visit.subject.subject_id, f"{visit.scan_id}-{scanner}"
            rows.append((scan, name, months, f"scanner{scanner + 1}", "test"))
            values.append(numbers[person, number, scanner])
            alike.append(numbers[person, number, own])
    columns = ["scan_id", "subject_id", "months_from_first", "site", "split"]
    table = pd.DataFrame(rows, columns=columns)
    sets = {"y_sem": np.array(values), "alike": np.array(alike)}
    quick = PARAMS.model_copy(update={"permutations": 0})
    found = judge_scanners(sets, table, quick, column="site").metrics
    assert found.reading["y_sem"].on_repeats > found.reading["alike"].on_repeats + 0.1
    truth = true_shares(numbers)
    for part in ("person", "visit", "site"):
        assert found.shares["y_sem"][part] == pytest.approx(truth[part], rel=0.1), part
