"""Quarter turns, tissue contrast, atrophy, and what ANTs prints: each on the template brain."""

import ctypes
import logging
import os

import numpy as np
import pytest

from pipeline.imaging.ants_setup import captured_ants_output
from pipeline.imaging.atlas.mni152 import grid_affine, load_template, load_tissues
from pipeline.imaging.qc import _contrasts, assess_qc, is_other_contrast, is_poor
from pipeline.imaging.register import overlap, template_grid
from pipeline.imaging.turns import quarter_turns, ranked_turns
from schemas.errors import ScanError
from schemas.grid import GridParams
from schemas.params import Params, QcParams
from tests.support.qc_numbers import GOOD

GRID = GridParams(shape=(64, 80, 64), zooms=3.0)
T1W = {"white_grey": 1.5, "grey_fluid": 1.3}


def test_there_are_24_quarter_turns_and_the_first_changes_nothing() -> None:
    turns = quarter_turns()
    np.testing.assert_array_equal(turns[0], np.eye(3))
    assert len({turn.tobytes() for turn in turns}) == 24
    for turn in turns:
        assert np.linalg.det(turn) == pytest.approx(1)
        np.testing.assert_array_equal(turn @ turn.T, np.eye(3))


@pytest.mark.parametrize(
    "wrong", [pytest.param(n, marks=pytest.mark.slow if n % 5 else ()) for n in range(24)]
)
def test_every_mix_up_of_axes_is_ranked_first(wrong: int) -> None:
    """The brain lies 15 degrees askew and 20 mm off as well, as heads do."""
    fine = template_grid(4.0)
    brain, _ = load_template(fine)
    nod = np.deg2rad(15)
    askew = np.array(
        [[1, 0, 0], [0, np.cos(nod), -np.sin(nod)], [0, np.sin(nod), np.cos(nod)]], dtype=float
    )
    header = np.eye(4)
    header[:3, :3] = quarter_turns()[wrong] @ askew
    header[:3, 3] = [20, -10, 5]
    (best, pose), (second, _) = ranked_turns(brain, header @ grid_affine(fine), template_grid(8.0))[
        :2
    ]
    np.testing.assert_allclose(pose[:3, :3], quarter_turns()[wrong].T)
    assert best > second + 0.01
    middle = pose @ header @ [0, -17, 5, 1]
    assert np.linalg.norm(middle[:3] - [0, -17, 5]) < 12


def contrasts_of(
    fluid: float, grey: float, white: float, *, mixed: float = 0.0
) -> dict[str, float]:
    """Return the contrasts of a template brain whose tissues have these intensities.

    A share `mixed` of the grey voxels holds any part of fluid, as atrophy leaves it.
    """
    _, mask = load_template(GRID)
    tissues = load_tissues(GRID)
    noise = np.random.default_rng(0).normal(0, 5, mask.shape)
    volume = np.where(mask, grey, 0.0) + noise
    for name, value in (("fluid", fluid), ("grey", grey), ("white", white)):
        volume[tissues[name]] = value + noise[tissues[name]]
    rng = np.random.default_rng(1)
    part = np.where(rng.uniform(size=mask.shape) < mixed, rng.uniform(size=mask.shape), 0)
    volume = np.where(tissues["grey"], volume + part * (fluid - grey), volume)
    return _contrasts(volume.astype(np.float32), mask, GRID)


@pytest.mark.parametrize(
    ("kind", "tissues", "status", "word"),
    [
        ("T1w", (60, 140, 235), "pass", ""),
        ("T1w of an elder, grey matter dark", (40, 120, 200), "pass", ""),
        ("T2w", (235, 120, 70), "fail", "grey matter over fluid"),
        ("FLAIR", (40, 190, 160), "fail", "white matter over grey"),
        ("T1 map", (250, 140, 80), "fail", "grey matter over fluid"),
        ("first inversion, fluid bright", (240, 100, 150), "fail", "grey matter over fluid"),
        ("no contrast", (100, 100, 100), "fail", "contrast of"),
    ],
)
def test_contrast_fails_what_is_no_t1w(
    kind: str, tissues: tuple[float, float, float], status: str, word: str
) -> None:
    numbers = GOOD | contrasts_of(*tissues)
    verdict = assess_qc(numbers, (), QcParams(), rigid=False)
    assert verdict.status == status, kind
    assert word in "; ".join(verdict.reasons)
    assert is_other_contrast(numbers, QcParams()) is (status == "fail")


def test_a_flair_fails_though_fluid_in_the_cortex_makes_its_grey_matter_dark() -> None:
    numbers = contrasts_of(50, 205, 190, mixed=0.6)
    assert numbers["white_grey"] < QcParams().white_grey_fail
    elder = contrasts_of(50, 150, 190, mixed=0.6)
    assert elder["white_grey"] > QcParams().white_grey_warn


@pytest.mark.slow
def test_contrast_of_the_template_itself_is_that_of_a_t1w_at_any_voxel_size() -> None:
    for grid in (GRID, Params().preprocess.grid, GridParams(shape=(96, 120, 96), zooms=2.0)):
        template, mask = load_template(grid)
        numbers = _contrasts(np.asarray(template), mask, grid)
        assert numbers["white_grey"] > 0.8
        assert numbers["grey_fluid"] > 1


@pytest.mark.slow
def test_a_grid_too_coarse_for_tissues_and_older_records_are_not_judged_by_contrast() -> None:
    coarse = GridParams(shape=(8, 10, 8), zooms=24.0)
    template, mask = load_template(coarse)
    assert _contrasts(np.asarray(template), mask, coarse) == {}
    assert assess_qc(GOOD, (), QcParams(), rigid=False).status == "pass"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"ncc": 0.35, "dice": 0.956}, "pass"),
        ({"ncc": 0.26, "dice": 0.956}, "pass"),
        ({"ncc": 0.20, "dice": 0.956}, "warn"),
        ({"ncc": 0.35, "dice": 0.94}, "warn"),
        ({"ncc": 0.34, "dice": 0.84}, "warn"),
        ({"ncc": 0.39, "dice": 0.955, "turned": 166.0}, "warn"),
        ({"ncc": 0.39, "dice": 0.955, "white_grey": 0.02}, "fail"),
        ({"ncc": 0.10, "dice": 0.97}, "fail"),
    ],
)
def test_large_ventricles_alone_are_no_reason_to_doubt_a_scan(
    change: dict[str, float], status: str
) -> None:
    numbers = GOOD | T1W | change
    assert assess_qc(numbers, (), QcParams(), rigid=False).status == status
    assert is_poor(numbers, QcParams()) is (status != "pass")


def test_overlap_is_dice_and_a_share_of_the_best_under_rigid() -> None:
    one, other = np.zeros(10, bool), np.zeros(10, bool)
    one[:4], other[2:10] = True, True
    assert overlap(one, other, rigid=False) == pytest.approx(2 * 2 / 12)
    assert overlap(one, other, rigid=True) == pytest.approx(2 * 2 / 8)
    assert overlap(~one & one, other, rigid=False) == 0


def say(text: str) -> None:
    """Print as C++ does: past sys.stdout."""
    library = ctypes.CDLL(None)
    library.puts(text.encode())
    library.fflush(None)


def test_what_ants_prints_stays_off_the_terminal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="pipeline.imaging.ants_setup"):
        with captured_ants_output("search of the pose"):
            say(" bad det 0")
            os.write(2, b"WARNING: in itk\n")
        print("ours")
    seen = capfd.readouterr()
    assert seen.out == "ours\n"
    # Not "in the text": a handler of an earlier test may complain there, and quote the message.
    assert not [line for line in seen.err.splitlines() if line.startswith("WARNING: in itk")]
    assert "bad det 0 | WARNING: in itk" in caplog.text


def test_a_failure_of_ants_is_one_line_with_its_last_words(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        with captured_ants_output("registration"):
            say("itk::ExceptionObject\nDescription: all samples map outside the moving image")
            raise RuntimeError("std::exception\nmore")

    with pytest.raises(ScanError) as raised:
        fail()
    assert str(raised.value) == (
        "registration failed in ANTs: std::exception;"
        " Description: all samples map outside the moving image"
    )
    assert capfd.readouterr().out == ""


def test_the_demo_grid_leaves_air_around_the_template_brain() -> None:
    """Real brains reach up to 9 mm further than the template's."""
    grid = Params().preprocess.grid
    _, mask = load_template(grid)
    for axis, margin in enumerate((3, 4, 3)):
        others = tuple(i for i in range(3) if i != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        assert filled[0] >= margin
        assert filled[-1] < grid.shape[axis] - margin
    assert all(size % 8 == 0 for size in grid.shape)
