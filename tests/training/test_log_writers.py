"""Curves and pictures go where they are asked for."""

import sys
import types
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

import pipeline.training.latent_diffusion as stages
from pipeline.models.frozen import load_autoencoder, load_diffusion
from pipeline.stores.latents import open_latents
from schemas.errors import ParamsError
from tests.support.tiny_models import CPU
from tests.support.tiny_training import ldae, ldm


class Live:
    """What the pipeline uses of dvclive.Live."""

    made: ClassVar[list] = []

    def __init__(self, folder, **options):
        self.folder, self.options, self.calls = folder, options, []
        self.step = 0
        Live.made.append(self)

    def log_metric(self, name, value):
        self.calls.append((self.step, name, value))

    def log_image(self, name, path):
        assert Path(path).is_file()
        self.calls.append((self.step, "image", name))

    def make_summary(self):
        pass

    def end(self):
        self.calls.append((self.step, "end", None))


@pytest.mark.slow
def test_pictures_and_curves_go_where_asked(
    tmp_path, monkeypatch, latents_path, autoencoder_path, split
):
    monkeypatch.setitem(sys.modules, "dvclive", types.SimpleNamespace(Live=Live))
    store = open_latents(latents_path)
    autoencoder = load_autoencoder(autoencoder_path, device=CPU)
    extra = {"pictures_every": 1, "log_to": ["dvclive"]}
    out = tmp_path / "ldm"
    stages.train_denoiser(store, split, ldm(**extra), out, device=CPU, autoencoder=autoencoder)
    names = sorted(p.name for p in (out / "pictures").iterdir())
    assert names == ["step-000002.png", "step-000004.png"]
    with Image.open(out / "pictures" / names[0]) as picture:  # 2 rows of 3 slices, 24 by 16
        assert (picture.width / 3) / (picture.height / 2) == 16 / 24
        assert len(picture.convert("L").getcolors()) > 10
    calls = Live.made[-1].calls
    assert {name for _, name, _ in calls} == {"loss", "val_loss", "val_loss_raw", "image", "end"}
    assert [step for step, name, _ in calls if name == "val_loss"] == [2, 4]
    frozen = load_diffusion(out, device=CPU)
    stages.train_ldae(store, split, frozen, ldae(**extra), tmp_path / "ldae", device=CPU)
    with Image.open(tmp_path / "ldae" / "pictures" / names[1]) as picture:
        assert picture.mode == "RGB"  # latents: three channels


@pytest.mark.slow
def test_tensorboard_is_written(train, tmp_path):
    train("ldm", log_to=["tensorboard"], pictures_every=2)
    assert list((tmp_path / "ldm" / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_a_sink_that_is_not_installed_is_named(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with pytest.raises(ParamsError, match=r"pip install 'ldae-pipeline\[dvclive\]'"):
        train("x", log_to=["dvclive"])
