"""Back to the grid of the image that a scan came as."""

import json
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import pipeline.stores.volumes as volume_module
from pipeline.applications.inputs import (
    NativeSpace,
    scan_from_store,
)
from pipeline.applications.nifti.native_space import brain_of, overlay, resolution, to_native
from pipeline.applications.nifti.output_files import Writer
from pipeline.applications.reconstruct import reconstruct
from pipeline.applications.runner import Opener, run_batch
from pipeline.imaging.atlas.mni152 import grid_affine
from pipeline.imaging.bias import BiasField
from pipeline.imaging.geometry import resample_masked
from pipeline.imaging.intensities import TissueLevels, scale_intensities, standardise
from schemas.errors import ContractError
from schemas.grid import GridParams
from schemas.params import PreprocessParams
from tests.support.fake_chain import preprocessed
from tests.support.volumes import SCAN, make_volumes


def oblique(shape, zooms=2.0):
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] = affine[:3, :3] @ np.diag([-zooms, zooms, zooms])
    affine[:3, 3] = [40, -30, -25]
    return affine


@dataclass(frozen=True)
class Resampled:
    """A brain on an oblique, flipped grid of its own, and the same brain on the MNI grid."""

    scan: np.ndarray
    inside: np.ndarray
    unit: np.ndarray
    mni_affine: np.ndarray
    native: NativeSpace

    def back(self, **changes: object) -> np.ndarray:
        """Return the brain of the MNI grid, back on its own grid."""
        brain = brain_of(self.unit, self.unit > 0)
        return to_native(self.unit, brain, replace(self.native, **changes), self.mni_affine)


@pytest.fixture(scope="module")
def resampled() -> Resampled:
    shape = (37, 42, 33)
    inside = np.zeros(shape, bool)
    inside[7:30, 8:33, 6:27] = True
    field = gaussian_filter(np.random.default_rng(0).normal(size=shape), 3)
    field = (field - field[inside].min()) / np.ptp(field[inside])
    scan = np.where(inside, 200 + 700 * field, 0).astype(np.float32)
    to_mni = np.array([[1.1, 0.1, 0, 3], [-0.1, 1.05, 0, -12], [0, 0, 0.95, 4], [0, 0, 0, 1]])
    grid = GridParams(shape=(60, 64, 56), zooms=2.0)
    affine = grid_affine(grid)
    values, mask = resample_masked(
        scan, inside, oblique(shape), np.linalg.inv(to_mni) @ affine, grid.shape
    )
    levels, limits = scale_intensities(values, mask, (0, 100))
    native = NativeSpace(
        native_to_mni=to_mni,
        native_affine=oblique(shape),
        native_shape=shape,
        intensity_range=limits,
    )
    return Resampled(scan, inside, levels.astype(np.float32) / 255, affine, native)


def test_native_output_lies_where_its_input_lay(resampled):
    back, inside = resampled.back(), resampled.inside
    assert back.shape == inside.shape
    assert (inside & (back > 0)).sum() / inside.sum() > 0.95
    assert ((back > 0) & ~inside).sum() / inside.sum() < 0.1


def test_native_output_has_the_intensities_of_its_input(resampled):
    back, scan = resampled.back(), resampled.scan
    both = resampled.inside & (back > 0)
    assert np.corrcoef(back[both], scan[both])[0, 1] > 0.97
    assert np.abs(back[both] - scan[both]).mean() < 25


def test_native_output_gets_its_bias_field_back(resampled):
    field = np.linspace(-0.5, 0.5, 4, dtype=np.float32).reshape(4, 1, 1)
    gain = BiasField(field, np.diag([30.0, 30, 30, 1]))
    back, shaded = resampled.back(), resampled.back(bias=gain)
    expected = gain.on(resampled.native.native_affine, resampled.inside.shape)
    assert np.ptp(expected) > 0.3
    both = resampled.inside & (back > 0)
    np.testing.assert_allclose(shaded[both] / back[both], expected[both], rtol=1e-4)


def test_native_output_of_standardised_intensities_has_those_of_its_input(resampled):
    own = TissueLevels(0.3, 0.6)
    share = np.clip((255 * resampled.unit - 1) / 254, 0, 1)
    moved = np.where(resampled.unit > 0, (1 + 254 * standardise(share, own)) / 255, 0)
    native = replace(resampled.native, tissue_levels=own)
    back = to_native(moved.astype(np.float32), resampled.unit > 0, native, resampled.mni_affine)
    both = resampled.inside & (back > 0)
    assert np.abs(back[both] - resampled.scan[both]).mean() < 25


def test_native_output_without_a_brain_is_empty(resampled):
    unit = resampled.unit * 0
    nothing = to_native(unit, unit > 0, resampled.native, resampled.mni_affine)
    assert nothing.shape == resampled.inside.shape
    assert not nothing.any()


def test_the_brain_includes_its_dark_ventricles_but_no_specks():
    volume = np.zeros((17, 18, 19), np.float32)
    volume[3:14, 3:14, 3:14] = 0.7
    volume[7:9, 7:9, 7:9] = 0.02
    volume[16, 16, 16] = 0.9
    expected = np.zeros(volume.shape, bool)
    expected[3:14, 3:14, 3:14] = True
    np.testing.assert_array_equal(brain_of(volume), expected)
    assert not brain_of(np.zeros((7, 8, 9), np.float32)).any()


@pytest.mark.slow
def test_native_space_is_the_grid_of_the_file(tmp_path, opener, models):
    writer = Writer(out=tmp_path, command="reconstruct", space="native", models=models)
    assert not run_batch([SCAN], opener, writer, lambda s: reconstruct(models, s.z_0))
    (path,) = tmp_path.glob("*_space-native_T1w.nii.gz")
    image = nib.load(path)
    assert image.shape == (30, 40, 50)
    np.testing.assert_allclose(image.affine, np.eye(4))


@pytest.mark.slow
def test_without_volumes_there_is_no_way_back(tmp_path, opener, models):
    alone = Opener(
        models=models, latents=opener.latents, volumes=None, preprocess=PreprocessParams()
    )
    writer = Writer(out=tmp_path, command="reconstruct", space="native", models=models)
    with pytest.raises(ContractError, match="give its --volumes"):
        run_batch([SCAN], alone, writer, lambda s: reconstruct(models, s.z_0))


@pytest.mark.slow
def test_the_record_says_how_native_output_overlays_its_file(tmp_path, monkeypatch, opener, models):
    scan = preprocessed()
    path = tmp_path / "head.nii.gz"
    noise = np.random.default_rng(0).normal(300, 60, scan.native_shape).astype(np.float32)
    nib.save(nib.Nifti1Image(gaussian_filter(noise, 1), scan.native_affine), path)
    monkeypatch.setattr(
        "pipeline.imaging.preprocess_scan.preprocess_scan", lambda path, params, device: scan
    )
    monkeypatch.setattr("pipeline.applications.runner.preprocessing_for", lambda *a, **k: a[1])
    writer = Writer(out=tmp_path, command="reconstruct", space="native", models=models)
    assert not run_batch([str(path)], opener, writer, lambda s: reconstruct(models, s.z_0))
    (output,) = json.loads(writer.document("head").read_text())["outputs"]
    made, image = (nib.load(f).get_fdata() for f in (tmp_path / output["file"], path))
    expected = np.corrcoef(made[made != 0], image[made != 0])[0, 1]
    assert output["correlation_with_file"] == pytest.approx(expected, abs=1e-4)
    assert output["correlation_with_file_smoothed"] != output["correlation_with_file"]


def test_smoothed_correlation_forgives_noise_and_no_shift():
    random = np.random.default_rng(0)
    image = gaussian_filter(random.normal(size=(40, 40, 40)), 3).astype(np.float32)
    made = np.zeros_like(image)
    made[8:-8, 8:-8, 8:-8] = (image / image.std() + 5)[8:-8, 8:-8, 8:-8]
    noisy = made + random.normal(0, 2, image.shape).astype(np.float32)
    sigma = resolution(3.0, np.diag([1.0, 1.0, 1.0, 1.0]))
    assert sigma == pytest.approx([1.274] * 3, abs=1e-3)
    assert overlay(made, noisy) < 0.6
    assert overlay(made, noisy, sigma) > 0.95
    assert overlay(made, np.roll(noisy, 4, axis=0), sigma) < 0.7
    # What lies outside has no weight.
    outside = np.where(made == 0, 1000, noisy).astype(np.float32)
    assert overlay(made, outside, sigma) == pytest.approx(overlay(made, noisy, sigma), abs=1e-4)


@pytest.mark.slow
def test_a_scan_of_the_store_gets_its_bias_field_back(opener, models):
    native = scan_from_store(SCAN, models, opener.latents, opener.volumes).native
    field = native.bias.on(native.native_affine, native.native_shape)
    np.testing.assert_allclose(field, np.exp(0.01 * int(SCAN[4:])), rtol=1e-3)


@pytest.mark.slow
def test_a_store_of_an_earlier_version_has_no_bias_field(tmp_path, monkeypatch, opener, models):
    arrays = volume_module._arrays
    monkeypatch.setattr(volume_module, "_arrays", lambda shape: arrays(shape)[:-1])
    former = make_volumes(tmp_path / "volumes.zarr", opener.volumes.attributes.scan_ids)
    native = scan_from_store(SCAN, models, opener.latents, former).native
    assert native.bias is None


@pytest.mark.slow
def test_the_scan_s_own_detail_makes_its_reconstruction_overlay_it(models, opener, tmp_path):
    writer = Writer(out=tmp_path, command="reconstruct", space="mni", models=models)
    scan = opener.open(SCAN)

    def error(*, detail):
        run_batch([SCAN], opener, writer, lambda s: reconstruct(models, s.z_0), detail=detail)
        (path,) = tmp_path.glob("*.nii.gz")
        return float(np.abs(nib.load(path).get_fdata() - scan.volume).mean())

    inverted = reconstruct(models, scan.z_0).volumes[0] - models.decode(scan.z_0)[0]
    assert error(detail=False) > 0.01
    # What is left is the sampler's error alone, the autoencoder's is gone.
    assert error(detail=True) <= float(inverted.abs().mean()) + 1e-6
    (record,) = tmp_path.glob("*.json")
    assert json.loads(record.read_text())["detail"] == "of the scan itself"
