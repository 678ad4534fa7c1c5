"""Brains of the page are those of the applications, and the newest request wins."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.applications.interpolate import interpolate
from pipeline.applications.manipulate import manipulate
from pipeline.applications.vary import vary
from pipeline.explore.brains import BrainRequest
from pipeline.explore.inference import (
    PREVIEW_STEPS,
    Evaluations,
    PageInference,
    SupersededError,
)
from schemas.errors import ContractError, ParamsError
from tests.support.explore_study import TOWARDS
from tests.support.volumes import OTHER, SCAN


def move(scale, **more):
    return BrainRequest(kind="move", scan=SCAN, direction=TOWARDS, scale=scale, **more)


def test_a_moved_brain_is_that_of_manipulate(engine, models, opener):
    direction = engine.directions.by_name[TOWARDS]
    z_0 = opener.open(SCAN).z_0
    theirs = manipulate(models, z_0, direction, [1.5]).volumes[0].numpy()
    made = engine.make(move(1.5))
    assert np.array_equal(made.volume, theirs)
    row = engine.study.scan_ids.index(SCAN)
    start = direction.position(engine.study.y_sem[row][None])[0]
    assert made.position == pytest.approx(start + 1.5)


def test_a_brain_between_two_and_variations_are_those_of_the_commands(engine, models, opener):
    a, b = opener.open(SCAN), opener.open(OTHER)
    theirs = interpolate(models, a.z_0, b.z_0, [0.25]).volumes[0].numpy()
    ours = engine.make(BrainRequest(kind="between", scan=SCAN, other=OTHER, alpha=0.25))
    assert np.array_equal(ours.volume, theirs)
    theirs = vary(models, a.z_0, name=SCAN, count=1, seed=7).volumes[0].numpy()
    assert np.array_equal(engine.make(BrainRequest(kind="vary", scan=SCAN, seed=7)).volume, theirs)


def test_brains_from_noise_depend_on_seed_and_prior(engine):
    one, again, prior = (
        engine.make(BrainRequest(kind="noise", seed=3, **more)).volume
        for more in ({}, {"quality": "full"}, {"prior": True})
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, prior)


def test_a_preview_takes_fewer_steps_and_keeps_codes_of_its_own(engine):
    engine.make(move(0.7, quality="preview"))
    assert (SCAN, PREVIEW_STEPS) in engine.maker.codes
    assert (SCAN, 6) in engine.maker.codes or engine.make(move(0.7)).seconds > 0
    full, preview = engine.make(move(0.7)).volume, engine.make(move(0.7, quality="preview")).volume
    assert not np.array_equal(full, preview)


def test_what_was_made_is_kept(engine):
    engine.make(move(0.9))
    assert engine.make(move(0.9)).seconds == 0


def test_the_first_features_are_computed_once(models, source, direction):
    page = PageInference.of(models, lambda: None)
    calls = []
    trunk = models.ldae.net.diffusion.denoiser.trunk
    codes = models.infer_codes(source.z_0)
    plain = models.sample(codes.y_sem + 1, codes.x_T)

    def counted(x_t, t):
        calls.append(float(t[0]))
        return trunk(x_t, t)

    models.ldae.net.diffusion.denoiser.trunk = counted
    try:
        page.sample(codes.y_sem, codes.x_T)
        first = len(calls)
        moved = page.sample(codes.y_sem + 1, codes.x_T)
    finally:
        del models.ldae.net.diffusion.denoiser.trunk
    assert first == models.num_inference_steps
    assert len(calls) == 2 * first - 1
    assert torch.equal(moved, plain)


def test_the_newest_request_of_a_client_wins(open_engine, study_folder):
    engine = open_engine(study_folder)
    engine.start()
    engine.make(move(0.0))
    steps, inside, go = [], threading.Event(), threading.Event()
    plain = engine._go_on

    def slow():
        steps.append(1)
        inside.set()
        assert go.wait(30)
        plain()

    engine.maker.models = replace(engine.maker.models, go_on=slow)
    ended = []

    def ask():
        try:
            engine.make(move(2.0), client="a", number=1)
        except SupersededError:
            ended.append("superseded")

    older = threading.Thread(target=ask)
    older.start()
    assert inside.wait(30)
    newer = threading.Thread(
        target=engine.make, args=(move(0.0),), kwargs={"client": "a", "number": 2}
    )
    newer.start()
    while engine._newest["a"] < 2:
        pass
    go.set()
    older.join(30)
    newer.join(30)
    assert ended == ["superseded"]
    assert len(steps) < 6, "it was given up before its last step"
    # Another client's numbers are its own.
    assert engine.make(move(0.1), client="b", number=1).volume.any()
    with pytest.raises(SupersededError):
        engine.make(move(0.3), client="a", number=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "move", "scan": SCAN},
        {"kind": "between", "scan": SCAN, "other": SCAN},
        {"kind": "move", "scan": SCAN, "direction": TOWARDS, "scale": 99},
        {"kind": "move", "scan": SCAN, "direction": TOWARDS, "scale": float("nan")},
        {"kind": "vary", "scan": SCAN, "seed": -1},
        {"kind": "scan", "scan": SCAN, "more": 1},
        {"kind": "move", "scan": SCAN, "direction": TOWARDS, "scale": 1e400},
        {"kind": "move", "scan": SCAN, "direction": TOWARDS, "scale": "1,5"},
        {"kind": "move", "scan": SCAN, "direction": TOWARDS, "seed": 1},
        {"kind": "noise", "scan": SCAN},
        {"kind": "noise", "seed": 10**30},
        {"kind": "between", "scan": SCAN, "other": OTHER, "alpha": 1.01},
        {"kind": "scan", "scan": "x" * 301},
        {"kind": "etc"},
    ],
)
def test_requests_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        BrainRequest.model_validate(wrong)


def test_a_request_of_no_client_is_never_superseded(engine):
    """Downloads and films name none; whoever sends numbers without a name stops nobody."""
    engine.make(move(0.2), number=10**30)
    assert engine.make(move(0.2), number=0).volume.any()


def test_an_inversion_that_a_drag_gave_up_is_gone_on_with(engine, models):
    engine.make(move(0.0))
    asked, last = 0, 0

    def go_on():
        nonlocal asked
        asked += 1
        if asked == last:
            raise SupersededError

    def page():
        return replace(engine.maker.models, go_on=go_on, inverted=Evaluations())

    z_0, other = engine.scan(SCAN).z_0, engine.scan(OTHER).z_0
    y_sem = models.embed(z_0)
    whole = page().invert(y_sem, z_0)
    steps, asked, last = asked, 0, 4
    given_up = page()
    with pytest.raises(SupersededError):
        given_up.invert(y_sem, z_0)
    assert torch.equal(given_up.invert(y_sem, z_0), whole)
    assert asked == steps + 1, "three steps were kept, and the fourth asked for twice"
    assert torch.equal(whole, models.invert(y_sem, z_0))
    for z_0_of, code, count in ((other, y_sem, 6), (other, y_sem + 1, 6), (other, y_sem, 5)):
        theirs = replace(models, num_inference_steps=count).invert(code, z_0_of)
        assert torch.equal(given_up.in_steps(count).invert(code, z_0_of), theirs)


def test_a_stopped_engine_gives_up_at_the_next_step(open_engine, study_folder):
    engine = open_engine(study_folder)
    engine.start()
    engine.make(move(0.0))
    engine.stop()
    with pytest.raises(SupersededError):
        engine.make(move(1.0))


def test_only_scans_and_directions_of_the_study_are_known(engine):
    with pytest.raises(ContractError, match="not a scan of this study"):
        engine.make(BrainRequest(kind="scan", scan="../../etc/passwd"))
    with pytest.raises(ParamsError, match=r"not among those here: diagnosis:AD"):
        engine.make(BrainRequest(kind="move", scan=SCAN, direction="nose", scale=1))


def test_models_of_another_study_are_a_sentence(open_engine, study_folder):
    engine = open_engine(study_folder)
    engine.study = replace(engine.study, ldae_digest="0" * 64)
    engine.start()
    with pytest.raises(ContractError, match=r"y_sem of another LDAE .*; run `pipeline embed`"):
        engine.make(move(1.0))
    assert engine.state == "failed"
    assert "\n" not in engine.problem


def test_a_bug_while_loading_does_not_leave_the_page_waiting(open_engine, study_folder, caplog):
    engine = open_engine(study_folder)

    def broken():
        raise RuntimeError("boom")

    engine.load = broken
    engine.start()
    with pytest.raises(ContractError, match="the terminal shows why"):
        engine.make(move(1.0))
    assert "boom" in caplog.text


def test_latents_of_another_autoencoder_are_a_sentence(open_engine, study_folder, models):
    engine = open_engine(study_folder)
    loaded = engine.load

    def other():
        opened = loaded()
        strange = replace(opened.models.autoencoder, digest="f" * 64)
        return replace(opened, models=replace(opened.models, autoencoder=strange))

    engine.load = other
    engine.start()
    with pytest.raises(ContractError, match="encoded by another autoencoder"):
        engine.make(move(1.0))
    assert isinstance(engine.study.paths.latents, Path)
