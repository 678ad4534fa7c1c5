"""Reconstruction metrics against naive ones, the health of noise, and subject bootstrap."""

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics.regression import SSIMMetric
from scipy.ndimage import correlate1d

from pipeline.metrics.bootstrap import subject_draws
from pipeline.metrics.gaussianity import latent_health
from pipeline.metrics.intervals import mean_interval, paired_difference
from pipeline.metrics.reconstruction import (
    RECONSTRUCTION_METRICS,
    reconstruction_metrics,
    summarise_reconstruction,
)
from pipeline.metrics.ssim import ms_ssim, ssim_and_contrast, ssim_window


def naive_ssim_map(x: np.ndarray, y: np.ndarray, window: int) -> np.ndarray:
    """Return Wang's SSIM on the full grid with scipy; right where the window fits."""
    offsets = np.arange(window) - window // 2
    kernel = np.exp(-((offsets / (1.5 * window / 11)) ** 2) / 2)
    kernel /= kernel.sum()

    def blur(image: np.ndarray) -> np.ndarray:
        for axis in range(3):
            image = correlate1d(image, kernel, axis=axis)
        return image

    mu_x, mu_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mu_x**2, blur(y * y) - mu_y**2
    cov = blur(x * y) - mu_x * mu_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    return luminance * (2 * cov + c2) / (var_x + var_y + c2)


def pair(shape: tuple[int, ...] = (13, 16, 15), scans: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(scans, 1, *shape, generator=generator)
    noise = 0.1 * torch.randn(scans, 1, *shape, generator=generator)
    prediction = (reference + noise).clamp(0, 1)
    mask = torch.zeros_like(reference, dtype=torch.bool)
    mask[..., 2:9, 3:14, 4:12] = True
    return reference, prediction, mask


@pytest.mark.parametrize("shape", [(13, 16, 15), (7, 8, 9), (23, 24, 25)])
def test_reconstruction_metrics_equal_naive(shape: tuple[int, ...]) -> None:
    reference, prediction, mask = pair(shape)
    table = reconstruction_metrics(reference, prediction, mask)
    assert list(table.columns) == list(RECONSTRUCTION_METRICS)
    window = ssim_window(shape)
    crop = tuple(slice(window // 2, side - window // 2) for side in shape)
    for i, row in table.iterrows():
        x = reference[i, 0].double().numpy()
        y = prediction[i, 0].double().numpy()
        inside = mask[i, 0].numpy()
        ssim = naive_ssim_map(x, y, window)[crop]
        assert row.ssim_whole == pytest.approx(ssim.mean(), abs=1e-4)
        assert row.ssim_brain == pytest.approx(ssim[inside[crop]].mean(), abs=1e-4)
        mse = np.mean((x - y)[inside] ** 2)
        assert row.mse_brain == pytest.approx(mse, rel=1e-4)
        assert row.mae_brain == pytest.approx(np.abs(x - y)[inside].mean(), rel=1e-4)
        assert row.psnr_brain == pytest.approx(10 * np.log10(1 / mse), rel=1e-4)
        assert row.mse_whole == pytest.approx(np.mean((x - y) ** 2), rel=1e-4)


def test_ssim_whole_is_monais_own_figure() -> None:
    reference, prediction, mask = pair((23, 24, 25))
    expected = SSIMMetric(spatial_dims=3)(prediction, reference).flatten()
    table = reconstruction_metrics(reference, prediction, mask)
    np.testing.assert_allclose(table.ssim_whole, expected, rtol=1e-5)


def test_identical_volumes_are_perfect_and_finite() -> None:
    reference, _, mask = pair()
    table = reconstruction_metrics(reference, reference, mask)
    np.testing.assert_allclose(table.ssim_brain, 1, atol=1e-12)
    assert (table.psnr_brain == 100).all()
    assert (table.mse_whole == 0).all()


@pytest.mark.parametrize("level", [0.01, 0.5, 0.99])
def test_ssim_never_exceeds_one_on_any_processor(level: float) -> None:
    """Flat tissue: its variance in a window is a millionth of its mean square."""
    generator = torch.Generator().manual_seed(0)
    reference = level + 1e-3 * torch.rand(1, 1, 31, 30, 29, generator=generator)
    other = reference + 1e-4 * torch.rand(reference.shape, generator=generator)
    mask = torch.ones_like(reference, dtype=torch.bool)
    for prediction in (reference, other):
        ssim, contrast = ssim_and_contrast(reference, prediction, 11)
        assert ssim.max() <= 1
        assert contrast.max() <= 1
        assert all(figure <= 1 for figure in ms_ssim(reference, prediction, mask))
    assert reconstruction_metrics(reference, reference, mask).ssim_whole[0] == 1
    x, y = (volume[0, 0].double().numpy() for volume in (reference, other))
    expected = naive_ssim_map(x, y, 11)[5:-5, 5:-5, 5:-5]
    found = ssim_and_contrast(reference, other, 11)[0][0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_ssim_inside_the_brain_sees_only_the_brain() -> None:
    reference, _, mask = pair((23, 24, 25), scans=1)
    mask = torch.zeros_like(mask)
    mask[..., 5:8, 5:8, 5:8] = True
    far = reference.clone()
    far[..., 14:, 14:, 14:] = 0
    table = reconstruction_metrics(reference, far, mask)
    assert table.ssim_brain[0] == pytest.approx(1, abs=1e-5)
    assert table.ssim_whole[0] < 0.99


def test_predictions_are_clipped_as_when_written() -> None:
    reference, prediction, mask = pair()
    wild = prediction.clone()
    wild[prediction >= 1] = 7.0
    pd.testing.assert_frame_equal(
        reconstruction_metrics(reference, wild, mask),
        reconstruction_metrics(reference, prediction, mask),
    )


@pytest.mark.parametrize(
    ("shape", "window"),
    [((7, 8, 9), 3), ((16, 20, 16), 7), ((64, 80, 64), 11), ((22, 30, 30), 11)],
)
def test_ssim_window_shrinks_with_the_grid(shape: tuple[int, ...], window: int) -> None:
    assert ssim_window(shape) == window


def test_bad_input_is_named() -> None:
    reference, prediction, mask = pair()
    with pytest.raises(ValueError, match="expected one shape"):
        reconstruction_metrics(reference, prediction[..., :-1], mask)
    mask[1] = False
    with pytest.raises(ValueError, match="scan 1 of the batch: mask is empty"):
        reconstruction_metrics(reference, prediction, mask)


def test_latent_health_tells_noise_from_the_rest() -> None:
    noise = torch.randn(4, 3, 14, 15, 16, generator=torch.Generator().manual_seed(0))
    health = latent_health(noise)
    assert health["mean"] == pytest.approx(0, abs=0.02)
    assert health["std"] == pytest.approx(1, abs=0.02)
    assert health["kurtosis"] == pytest.approx(3, abs=0.1)
    uniform = torch.rand(4, 3, 14, 15, 16, generator=torch.Generator().manual_seed(0))
    assert latent_health(uniform)["kurtosis"] == pytest.approx(1.8, abs=0.05)
    assert latent_health(2 * noise + 5)["std"] == pytest.approx(2 * health["std"])
    assert np.isnan(latent_health(noise * torch.inf)["mean"])


def test_draws_take_whole_subjects() -> None:
    subjects = np.array(["b", "a", "b", "c", "a", "b"])
    scans = {name: set(np.flatnonzero(subjects == name)) for name in "abc"}
    draws = subject_draws(subjects, draws=50, seed=1)
    assert len(draws) == 50
    for rows in draws:
        names, counts = np.unique(subjects[rows], return_counts=True)
        assert sum(counts / [len(scans[name]) for name in names]) == 3
        for name in names:
            assert scans[name] <= set(rows)


def test_interval_rests_on_subjects_not_scans() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        effect = generator.normal(size=40)
        subjects = np.repeat(np.arange(40), 3)
        values = effect[subjects] + 0.1 * generator.normal(size=120)
        estimate = mean_interval(values, subjects)
        assert estimate.subjects == 40
        assert estimate.interval is not None
        # By scan the interval would be sqrt(3) times too narrow.
        width = estimate.interval[1] - estimate.interval[0]
        assert width == pytest.approx(4 * effect.std() / 40**0.5, rel=0.2)


def test_no_rows_and_one_subject() -> None:
    with pytest.raises(ValueError, match="at least one scan"):
        mean_interval([], [])
    with pytest.raises(ValueError, match=r"1 value.* NaN"):
        mean_interval([1.0, float("nan")], ["a", "b"])
    estimate = mean_interval([1.0, 3.0], ["a", "a"])
    assert (estimate.value, estimate.interval, estimate.subjects) == (2, None, 1)


def test_paired_difference_cancels_what_is_shared() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(size=30)
    first = shared + 0.5 + 0.01 * generator.normal(size=30)
    estimate = paired_difference(first, shared, np.arange(30))
    assert estimate.value == pytest.approx(0.5, abs=0.01)
    assert estimate.interval is not None
    assert estimate.interval[1] - estimate.interval[0] < 0.02


def test_summary_keeps_the_order_of_methods() -> None:
    per_scan = pd.DataFrame(
        {
            "scan_id": ["s1", "s2"] * 2,
            "subject_id": ["a", "b"] * 2,
            "method": ["ldae"] * 2 + ["ae"] * 2,
            "ssim_brain": [0.8, 0.9, 0.85, 0.95],
        }
    )
    summary = summarise_reconstruction(per_scan)
    assert list(summary) == ["ldae", "ae"]
    assert summary["ae"]["ssim_brain"]["value"] == pytest.approx(0.9)
    assert summary["ae"]["ssim_brain"]["subjects"] == 2
