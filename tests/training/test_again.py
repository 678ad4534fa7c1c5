"""Training once more: what is kept, what is trained anew, and what is told."""

import json
import resource
import signal

import pytest

import pipeline.training.latent_diffusion as stages
from pipeline.stores.latents import open_latents
from pipeline.training.latent_modules import DenoiserModule
from pipeline.training.step_module import StepModule
from schemas.errors import TrainingError
from tests.support.tiny_models import CPU
from tests.support.tiny_training import ldm


@pytest.mark.slow
def test_nothing_is_trained_again_when_the_model_could_not_be_written(train, tmp_path, monkeypatch):
    whole = train("whole", steps=5)
    trained = []
    compute, write = DenoiserModule.compute_losses, stages.write_artefact

    def counting(self, step):
        trained.append(step)
        return compute(self, step)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DenoiserModule, "compute_losses", counting)
    monkeypatch.setattr(stages, "write_artefact", full)
    with pytest.raises(OSError, match="No space"):
        train("again", steps=5)
    monkeypatch.setattr(stages, "write_artefact", write)
    assert train("again", steps=5).digest == whole.digest
    assert trained == list(range(5))
    assert not (tmp_path / "again.training").exists()


@pytest.mark.slow
def test_training_anew_tells_which_parameters_and_inputs_differ(
    tmp_path, train, monkeypatch, caplog, latents_path, split
):
    """From a checkpoint that is discarded, and from a finished model that is replaced."""
    compute = DenoiserModule.compute_losses

    def dying(self, step):
        if step == 3:
            raise KeyError
        return compute(self, step)

    monkeypatch.setattr(DenoiserModule, "compute_losses", dying)
    with pytest.raises(KeyError):
        train("cut", lr=1e-3)
    monkeypatch.setattr(DenoiserModule, "compute_losses", compute)
    train("cut", lr=2e-3, ema_decay=0.9)
    (line,) = [r.getMessage() for r in caplog.records if "trained otherwise" in r.getMessage()]
    assert "cut.training: 2 steps trained otherwise are discarded" in line
    assert "lr: 0.001, now 0.002; ema_decay: 0.995, now 0.9" in line
    assert "holds a model" not in caplog.text
    caplog.clear()
    train("cut", lr=2e-3, ema_decay=0.9)
    assert "otherwise" not in caplog.text
    store, fewer = open_latents(latents_path), split | {"train": split["train"][1:]}
    again = ldm(lr=2e-3, ema_decay=0.9, seed=3)
    stages.train_denoiser(store, fewer, again, tmp_path / "cut", device=CPU)
    (line,) = [r.getMessage() for r in caplog.records if "otherwise" in r.getMessage()]
    assert "cut: holds a model made otherwise (seed: 0, now 3; other split)" in line


@pytest.mark.slow
def test_a_plan_of_an_earlier_version_is_taken_up_or_told(tmp_path, train, monkeypatch, caplog):
    """It holds the fingerprint alone."""
    monkeypatch.setattr("pipeline.training.lightning_run.discard_checkpoints", lambda _: None)
    whole = train("old")
    plan = tmp_path / "old.training" / "plan.json"
    plan.write_text(json.dumps({"fingerprint": json.loads(plan.read_text())["fingerprint"]}))
    (tmp_path / "old" / "config.json").unlink()
    assert train("old").digest == whole.digest
    assert "otherwise" not in caplog.text
    train("old", lr=5e-3)
    assert "4 steps trained otherwise are discarded" in caplog.text
    assert "nothing was recorded" in caplog.text


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_old_one(
    tmp_path, train, monkeypatch
):
    """A limit on file sizes stands in for a full disk."""
    whole = train("whole")
    folder = tmp_path / "full.training"
    before: list[bytes] = []
    validate = StepModule.validation_step
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def then_fill(self, step):
        validate(self, step)
        if self.global_step == 4:
            before.append((folder / "last.ckpt").read_bytes())
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    monkeypatch.setattr(StepModule, "validation_step", then_fill)
    try:
        with pytest.raises(TrainingError, match="the previous one is kept") as caught:
            train("full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert (folder / "last.ckpt").read_bytes() == before[0]
    assert sorted(p.name for p in folder.iterdir()) == ["last.ckpt", "plan.json"]
    monkeypatch.setattr(StepModule, "validation_step", validate)
    assert train("full").digest == whole.digest
