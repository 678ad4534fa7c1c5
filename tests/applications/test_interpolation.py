"""Between two scans: ends, places by month, the scans' own detail."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.applications.interpolate import interpolate, slerp
from pipeline.applications.nifti.output_files import Writer
from pipeline.applications.reconstruct import reconstruct
from pipeline.applications.runner import run_pair
from pipeline.applications.time_points import InterpolationPoints, alphas_of_months
from schemas.errors import ParamsError
from tests.support.volumes import OTHER, SCAN


@pytest.mark.slow
def test_ends_of_an_interpolation_are_the_reconstructions(models, opener, source):
    other = opener.open(OTHER)
    outcome = interpolate(models, source.z_0, other.z_0, [0.0, 0.5, 1.0])
    for i, scan in ((0, source), (2, other)):
        expected = reconstruct(models, scan.z_0).volumes[0]
        torch.testing.assert_close(outcome.volumes[i], expected, atol=1e-3, rtol=0)
    assert not torch.allclose(outcome.volumes[1], outcome.volumes[0], atol=1e-3)


@pytest.mark.slow
def test_places_beyond_the_scans_are_left_to_forecast(models, opener, source):
    other = opener.open(OTHER)
    with pytest.raises(ParamsError, match=r"--alpha 1.5: expected 0 .* `pipeline forecast`"):
        interpolate(models, source.z_0, other.z_0, [0.5, 1.5])


def test_slerp_keeps_the_length_and_survives_equal_noises():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 3, 7, 8, 9, generator=generator) for _ in range(2))
    b = b * a.norm() / b.norm()
    alpha = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    path = slerp(a, b, alpha)
    torch.testing.assert_close(path[[0, 2]], torch.cat([a, b]))
    assert path.flatten(1).norm(dim=1).tolist() == pytest.approx([float(a.norm())] * 3, rel=1e-5)
    torch.testing.assert_close(slerp(a, a, alpha), a.expand(3, -1, -1, -1, -1))


def test_months_are_places_between_the_visits():
    assert alphas_of_months([6, 12, 18], 6, 18) == [0, 0.5, 1]
    assert alphas_of_months([12], 24, 0) == [0.5]


def test_months_that_lie_nowhere_are_refused():
    with pytest.raises(ParamsError, match=r"--months 24: expected 0 to 12, .*`pipeline forecast`"):
        alphas_of_months([24], 0, 12)
    with pytest.raises(ParamsError, match="both scans are of month 6"):
        alphas_of_months([6], 6, 6)


@pytest.mark.slow
def test_detail_of_the_scans_is_added_to_what_lies_between(models, opener, tmp_path):
    writer = Writer(out=tmp_path, command="interpolate", space="mni", models=models)
    places = InterpolationPoints([0.25], None, {})
    plain = interpolate(models, *(opener.open(s).z_0 for s in (SCAN, OTHER)), [0.25]).volumes[0]
    run_pair(SCAN, OTHER, opener, writer, places, detail=True)
    (path,) = tmp_path.glob("*.nii.gz")
    first, second = (opener.open(scan) for scan in (SCAN, OTHER))
    details = [s.volume - models.decode(s.z_0)[0].numpy() for s in (first, second)]
    wanted = (plain.numpy() + 0.75 * details[0] + 0.25 * details[1]).clip(0, 1)
    np.testing.assert_allclose(nib.load(path).get_fdata(), wanted, atol=1e-5)


@pytest.mark.slow
def test_detail_needs_the_volumes(models, opener, tmp_path):
    writer = Writer(out=tmp_path, command="interpolate", space="mni", models=models)
    places = InterpolationPoints([0.25], None, {})
    without = dataclasses.replace(opener, volumes=None)
    with pytest.raises(ParamsError, match="--detail: give the --volumes"):
        run_pair(SCAN, OTHER, without, writer, places, detail=True)
