"""Forecasts: where the draws stand, what the maps are, which visits are taken."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from pipeline.applications.forecast import MAPS, forecast
from pipeline.applications.forecast_run import ForecastOptions, run_forecast
from pipeline.applications.forecast_visits import beyond_seen, ordered_visits, visits_of
from pipeline.applications.nifti.output_files import Writer
from pipeline.applications.reconstruct import reconstruct
from pipeline.measurement.course import fit_course
from pipeline.metrics.ensembles import reach
from schemas.errors import ContractError, ParamsError
from tests.support.repeated_visits import write_repeated
from tests.support.tiny_models import DIM
from tests.support.volumes import SCAN

FIRST, SECOND, THIRD = "sub-015", "sub-016", "sub-017"
"""Visits of one person of test, at months 0, 6 and 12."""


def course_of_size(size):
    """Return a course that moves by 0.01 a month, with scatter of this size."""
    generator = np.random.default_rng(0)
    level = generator.normal(size=(12, DIM)).repeat(2, axis=0)
    months = np.tile([0.0, 12], 12)
    values = level + 0.01 * months[:, None] + size * generator.normal(size=(24, DIM))
    return fit_course(values, months, [str(i // 2) for i in range(24)])


@pytest.fixture
def manifest(tmp_path, split):
    return write_repeated(tmp_path, split)


@pytest.mark.slow
def test_maps_are_those_of_the_draws(models, source):
    made = forecast(
        models, source.z_0, course=course_of_size(0.2), after=[12.0], draws=6, seed=1, name=SCAN,
        keep=True,
    )  # fmt: skip
    assert made.labels[:5] == ["last-visit", *(f"months12-{kind}" for kind in MAPS)]
    volumes = made.volumes.numpy()
    np.testing.assert_allclose(volumes[0], models.decode(source.z_0)[0].numpy(), atol=1e-6)
    mean, std, low, high = volumes[1:5]
    draws = volumes[5:]
    assert len(draws) == 6
    np.testing.assert_allclose(mean, draws.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(std, draws.std(axis=0, ddof=1), atol=1e-6)
    np.testing.assert_allclose(high, np.clip(mean + reach(6) * std, 0, 1), atol=1e-6)
    assert std.max() > 1e-4
    assert (low <= mean).all()
    assert made.differences == {"months12-std"}
    told = made.outcome()["forecasts"][0]["volumes_ml"]["lateral ventricles"]
    assert told["low"] <= told["mean"] <= told["high"]
    again = forecast(
        models, source.z_0, course=course_of_size(0.2), after=[6.0, 12.0], draws=6, seed=1,
        name=SCAN,
    )  # fmt: skip
    np.testing.assert_allclose(again.volumes[5].numpy(), mean, atol=1e-5)


@pytest.mark.slow
def test_without_scatter_and_change_the_forecast_is_the_reconstruction(models, source):
    still = fit_course(np.ones((4, DIM)), np.array([0.0, 12, 0, 12]), ["a", "a", "b", "b"])
    made = forecast(models, source.z_0, course=still, after=[12.0], draws=4, seed=1, name=SCAN)
    expected = reconstruct(models, source.z_0).volumes[0].numpy()
    np.testing.assert_allclose(made.volumes[1].numpy(), expected, atol=1e-4)
    assert made.volumes[2].max() < 1e-5


@pytest.mark.slow
def test_a_person_s_forecast_is_written_and_kept(models, opener, manifest, tmp_path):
    names = [FIRST, SECOND]
    months = ordered_visits(names, manifest, "auto")
    writer = Writer(out=tmp_path / "out", command="forecast", space="native", models=models)
    asked = ForecastOptions(after=[6.0], draws=4, seed=0, detail=True, remarks=["a doubt"])
    path, is_new = run_forecast(names, months, course_of_size(0.2), opener, writer, asked)
    assert is_new
    text = path.read_text()
    assert '"a doubt"' in text
    assert '"own_slope_weight"' in text
    assert '"forecasts"' in text
    std = nib.load(tmp_path / "out" / f"{SECOND}_months6-std_space-native_T1w.nii.gz").get_fdata()
    mean = nib.load(tmp_path / "out" / f"{SECOND}_months6-mean_space-native_T1w.nii.gz")
    assert mean.shape == std.shape == (30, 40, 50)
    assert std.min() == 0  # a difference keeps its 0, whatever the file's intensities begin with
    assert run_forecast(names, months, course_of_size(0.2), opener, writer, asked) == (path, False)


@pytest.mark.slow
def test_without_a_way_back_native_space_is_refused_before_drawing(models, opener, tmp_path):
    """As of a store made with registration syn."""
    without = dataclasses.replace(opener, volumes=None)
    writer = Writer(out=tmp_path / "out", command="forecast", space="native", models=models)
    asked = ForecastOptions(after=[6.0], draws=4, seed=0)
    with pytest.raises(ContractError, match="registration syn keeps no way back"):
        run_forecast([SCAN], [0.0], course_of_size(0.2), without, writer, asked)


def test_visits_are_taken_in_order(manifest):
    assert ordered_visits([FIRST, SECOND, THIRD], manifest, "auto") == [0, 6, 12]
    assert ordered_visits(["nowhere"], manifest, "auto") == [0]
    assert visits_of(FIRST, manifest, [THIRD, FIRST]) == [FIRST, THIRD]


@pytest.mark.parametrize(
    ("names", "slope", "error", "told"),
    [
        ([FIRST], "own", ParamsError, "--slope own: one visit given, two are needed"),
        ([SECOND, FIRST], "auto", ContractError, "before sub-016 of month 6; give visits in order"),
        ([FIRST, FIRST], "auto", ContractError, "on one day with sub-015"),
        ([FIRST, "sub-019"], "auto", ContractError, "expected visits of one person"),
        ([FIRST, "nowhere"], "auto", ContractError, "nowhere is not in it"),
        ([FIRST, "head.nii.gz"], "auto", ParamsError, "an image has no month"),
    ],
)
def test_visits_that_make_no_line_are_refused(manifest, names, slope, error, told):
    with pytest.raises(error, match=told) as caught:
        ordered_visits(names, manifest, slope)
    assert "\n" not in str(caught.value)


def test_months_beyond_what_anybody_was_followed_are_told():
    course = course_of_size(0.2)
    assert beyond_seen([6.0, 12.0], course) is None
    assert "36 months: the 12 people" in str(beyond_seen([36.0], course))


@pytest.mark.parametrize("draws", [3, 1001])
def test_too_few_or_many_draws_are_refused(models, draws):
    with pytest.raises(ParamsError, match=f"--draws {draws}: expected 4 to 1000"):
        forecast(
            models, None, course=course_of_size(0.2), after=[1.0], draws=draws, seed=0, name="x"
        )
