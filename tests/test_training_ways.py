"""Ways to train that must not change the outcome, and runs that end before the last step."""

import json
import math
import resource
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import pipeline.training.latent_diffusion as stages
from pipeline.models.artefact import read_artefact
from pipeline.models.frozen import load_autoencoder, load_diffusion
from pipeline.models.ldae import build_diffusion, unet_config
from pipeline.stores import latents
from pipeline.stores.latents import open_latents
from pipeline.training.latent_modules import DenoiserModule
from pipeline.training.step_module import StepModule
from schemas.diffusion import TrainLdaeParams, TrainLdmParams
from schemas.errors import ContractError, ParamsError, TrainingError
from stages.cli import app

pytestmark = pytest.mark.slow
"""Networks are trained."""

CPU = torch.device("cpu")
NETS = {
    "denoiser": {"base_channels": 8, "attention_levels": [1], "multipliers": [1, 2]},
    "encoder": {"channels": [8, 16], "dim": 12, "num_heads": 2, "modes": 4},
}


def ldm(**changes) -> TrainLdmParams:
    shared = {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "precision": "fp32"}
    return TrainLdmParams(**(shared | changes), denoiser=NETS["denoiser"])


def ldae(**changes) -> TrainLdaeParams:
    shared = {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "precision": "fp32"}
    return TrainLdaeParams(**({"encoder": NETS["encoder"]} | shared | changes))


@pytest.fixture
def train(tmp_path, latents_path, split):
    """Train stage 1 into a folder of tmp_path; return its artefact."""

    def run(name, **changes):
        store = open_latents(latents_path)
        stages.train_denoiser(store, split, ldm(**changes), tmp_path / name, device=CPU)
        return read_artefact(tmp_path / name, kind="ldm")

    return run


def assert_same_weights(one, other, atol=1e-5):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=atol, rtol=1e-3, msg=name)


class CapturedError(Exception):
    pass


def gradients(monkeypatch, train_stage, parts):
    """Return the gradients of a step's batch cut into so many parts, weights away from zero."""
    modules = []

    def capture(module, *_, **__):
        modules.append(module)
        raise CapturedError

    monkeypatch.setattr(stages, "run_training", capture)
    with pytest.raises(CapturedError):
        train_stage(accumulate=parts)
    (module,) = modules
    generator = torch.Generator().manual_seed(7)
    for parameter in module.net.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    for micro in range(parts):
        module.training_step(micro).div(parts).backward()
    return {name: p.grad for name, p in module.net.named_parameters()}


@pytest.mark.parametrize("stage", [1, 2])
def test_micro_batches_have_the_gradient_of_one_large_batch(
    tmp_path, train, latents_path, split, monkeypatch, stage
):
    """Gradients, and not weights after some steps: Adam makes rounding of a zero a whole step."""
    train("ldm")
    store, frozen = open_latents(latents_path), load_diffusion(tmp_path / "ldm", device=CPU)

    def train_stage(**changes):
        if stage == 1:
            return train("x", **changes)
        return stages.train_ldae(store, split, frozen, ldae(**changes), tmp_path / "x", device=CPU)

    whole, cut = (gradients(monkeypatch, train_stage, parts) for parts in (1, 2))
    assert whole.keys() == cut.keys()
    largest = max(float(g.abs().max()) for g in whole.values())
    assert largest > 1e-3
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=1e-4 * largest, rtol=1e-3, msg=name)


def test_a_cut_run_resumes_to_the_same_weights(tmp_path, train, monkeypatch):
    compute = DenoiserModule.compute_losses

    def dying(self, step):
        if step == 3:
            raise KeyError
        return compute(self, step)

    whole = train("whole", accumulate=2)
    monkeypatch.setattr(DenoiserModule, "compute_losses", dying)
    with pytest.raises(KeyError):
        train("resumed", accumulate=2)
    monkeypatch.setattr(DenoiserModule, "compute_losses", compute)
    assert train("resumed", accumulate=2).digest == whole.digest
    curves = [
        pd.read_csv(tmp_path / name / "log.csv").drop(columns="seconds")
        for name in ("whole", "resumed")
    ]
    pd.testing.assert_frame_equal(*curves)


def test_a_batch_that_cannot_be_cut_is_refused(train):
    with pytest.raises(ParamsError, match="batch_size 4: cannot be cut into 3"):
        train("x", accumulate=3)


@pytest.mark.parametrize(("per", "updates"), [("step", 4), ("micro_batch", 8)])
def test_the_average_moves_once_a_step_or_as_published(train, monkeypatch, per, updates):
    counts = []
    finish = stages.final_metrics
    monkeypatch.setattr(
        stages, "final_metrics", lambda m: counts.append(int(m.ema.n_averaged)) or finish(m)
    )
    train(per, accumulate=2, ema_per=per)
    assert counts == [updates]


@pytest.mark.slow
def test_compiled_equals_plain(train, monkeypatch):
    """With the compiler's tracing, but not its code generation, which takes minutes."""
    compiled, plain = [], nn.Module.compile

    def compile_eagerly(self):
        compiled.append(type(self).__name__)
        plain(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    reference = train("plain")
    assert_same_weights(reference.tensors, train("compiled", compile=True).tensors)
    assert compiled == ["Denoiser"]


def validations(monkeypatch, losses):
    """Make the validations give these losses, and note the weights that each saw."""
    seen, given = [], iter(losses)

    def compute(self):
        seen.append({k: v.clone() for k, v in self.averaged.state_dict().items()})
        return {"loss": next(given)}

    monkeypatch.setattr(DenoiserModule, "compute_validation", compute)
    return seen


def test_training_ends_where_validation_no_longer_improves_with_the_best_weights(
    train, monkeypatch
):
    seen = validations(monkeypatch, [3.0, 1.0, 2.0, 1.5, 0.1, 0.1])
    made = train("early", steps=12, patience=2)
    assert len(seen) == 4
    for name, tensor in seen[1].items():
        assert torch.equal(tensor, made.tensors[f"denoiser.{name}"])
    figures = made.config["metrics"]
    assert figures["val_loss"] == 1.0
    assert figures["best_step"] == figures["step"] / 2


def test_the_best_weights_survive_a_kill(train, monkeypatch):
    compute = DenoiserModule.compute_losses

    def dying(self, step):
        if step == 5:
            raise KeyError
        return compute(self, step)

    seen = validations(monkeypatch, [1.0, 2.0, 1.5])
    monkeypatch.setattr(DenoiserModule, "compute_losses", dying)
    with pytest.raises(KeyError):
        train("killed", steps=12, patience=2)
    monkeypatch.setattr(DenoiserModule, "compute_losses", compute)
    made = train("killed", steps=12, patience=2)
    assert len(seen) == 3
    for name, tensor in seen[0].items():
        assert torch.equal(tensor, made.tensors[f"denoiser.{name}"])


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


def test_the_last_weights_are_validated_where_no_interval_ends_with_them(train, tmp_path):
    train("odd", steps=5)
    log = pd.read_csv(tmp_path / "odd" / "log.csv").set_index("step")
    assert log["val_loss"].dropna().index.tolist() == [2, 4, 5]


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


def test_a_plan_of_an_earlier_version_is_taken_up_or_told(tmp_path, train, monkeypatch, caplog):
    """It holds the fingerprint alone."""
    monkeypatch.setattr(stages, "discard_checkpoints", lambda _: None)
    whole = train("old")
    plan = tmp_path / "old.training" / "plan.json"
    plan.write_text(json.dumps({"fingerprint": json.loads(plan.read_text())["fingerprint"]}))
    (tmp_path / "old" / "config.json").unlink()
    assert train("old").digest == whole.digest
    assert "otherwise" not in caplog.text
    train("old", lr=5e-3)
    assert "4 steps trained otherwise are discarded" in caplog.text
    assert "nothing was recorded" in caplog.text


def test_an_early_end_is_remembered(train, monkeypatch):
    """When only the model was missing, training does not go on."""
    seen = validations(monkeypatch, [1.0, 2.0, 3.0, 0.1])
    write = stages.write_artefact
    monkeypatch.setattr(stages, "write_artefact", lambda *_, **__: (_ for _ in ()).throw(KeyError))
    with pytest.raises(KeyError):
        train("early", steps=12, patience=2)
    monkeypatch.setattr(stages, "write_artefact", write)
    assert train("early", steps=12, patience=2).config["metrics"]["val_loss"] == 1.0
    assert len(seen) == 3


def test_without_a_bound_gradients_are_not_clipped(train):
    free, tight = train("free", grad_clip=0), train("tight", grad_clip=1e-9)
    changed = [not torch.equal(free.tensors[k], v) for k, v in tight.tensors.items()]
    assert any(changed)


def test_patience_without_validation_scans_trains_to_the_last_step(
    tmp_path, latents_path, split, caplog
):
    store, no_val = open_latents(latents_path), {**split, "val": []}
    metrics = stages.train_denoiser(store, no_val, ldm(patience=1), tmp_path / "x", device=CPU)
    assert metrics["step"] == ldm().steps
    assert "no early stop" in caplog.text


def test_an_empty_validation_split_costs_the_figures_only(tmp_path, latents_path, split, caplog):
    store, no_val = open_latents(latents_path), split | {"val": []}
    metrics = stages.train_denoiser(store, no_val, ldm(), tmp_path / "ldm", device=CPU)
    assert "val_loss" not in metrics
    frozen = load_diffusion(tmp_path / "ldm", device=CPU)
    metrics = stages.train_ldae(store, no_val, frozen, ldae(), tmp_path / "ldae", device=CPU)
    assert math.isfinite(metrics["loss"])
    assert "no validation scan" in caplog.text


def test_fewer_scans_than_a_batch_lower_it_to_what_can_be_cut(latents_path, split, caplog):
    store = open_latents(latents_path)
    loaded = {k: store.load(split[k]) for k in ("train", "val")}
    config = {
        "unet": unet_config(ldm().denoiser, in_channels=3),
        "diffusion": {},
        "prediction": "epsilon",
        "statistics": [3, 1, 1, 1],
    }
    diffusion = build_diffusion(config)
    params = ldm(batch_size=50, accumulate=5)
    module = DenoiserModule(diffusion.denoiser, params, diffusion, loaded, "sample")
    assert module.batch_size == 10
    assert "only 12 training scans" in caplog.text


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


def test_tensorboard_is_written(train, tmp_path):
    train("ldm", log_to=["tensorboard"], pictures_every=2)
    assert list((tmp_path / "ldm" / "tensorboard").glob("events*"))


def test_a_sink_that_is_not_installed_is_named(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with pytest.raises(ParamsError, match=r"pip install 'ldae-pipeline\[dvclive\]'"):
        train("x", log_to=["dvclive"])


def test_the_stored_draw_of_a_scan_never_changes(latents_path, split):
    store = open_latents(latents_path)
    loaded = {k: store.load(split[k]) for k in ("train", "val")}
    unet = unet_config(ldm().denoiser, in_channels=3)
    config = {"unet": unet, "diffusion": {}, "prediction": "epsilon"}
    diffusion = build_diffusion(config | {"statistics": [3, 1, 1, 1]})
    module = DenoiserModule(diffusion.denoiser, ldm(), diffusion, loaded, "stored_draw")
    both = module.clean("train", torch.tensor([3, 5]))
    torch.testing.assert_close(module.clean("train", torch.tensor([5, 3])), both.flip(0))
    mean = loaded["train"].take_mean(torch.tensor([3, 5]))
    spread = (0.5 * loaded["train"].logvar[[3, 5]].float()).exp()
    assert float(((both - mean) / spread).std()) == pytest.approx(1, abs=0.1)


def test_latents_that_are_not_finite_are_refused_by_name(train, monkeypatch):
    read = latents.take_rows

    def poisoned(*arguments, **options):
        values = read(*arguments, **options).copy()
        values[3, 0, 1, 2, 3] = float("nan")
        return values

    monkeypatch.setattr(latents, "take_rows", poisoned)
    with pytest.raises(ContractError, match=r"posterior_mean of sub-003 is not finite"):
        train("x")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, latents_path):
    """`train-ldae` alone, both stages, under torchrun on the CPU."""
    options = [
        "--latents", str(latents_path),
        "--device", "cpu",
        "--set", "train_ldm.steps=3", "--set", "train_ldae.steps=3",
        "--set", "train_ldm.batch_size=4", "--set", "train_ldae.batch_size=4",
        "--set", "train_ldm.precision=fp32", "--set", "train_ldae.precision=fp32",
        "--set", "train_ldm.denoiser.base_channels=8",
        "--set", "train_ldm.denoiser.multipliers=[1,2]",
        "--set", "train_ldm.denoiser.attention_levels=[1]",
        "--set", "train_ldae.encoder.channels=[8,16]",
    ]  # fmt: skip
    command = ["train-ldae", *options, "--out"]
    alone = CliRunner().invoke(app, [*command, str(tmp_path / "one" / "ldae")])
    assert alone.exit_code == 0, alone.output
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [sys.executable, *torchrun, "-m", "stages.cli", *command, str(tmp_path / "two" / "ldae")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.glob("*/*.training"))
    for folder, kind in (("ldae-ldm", "ldm"), ("ldae", "ldae")):
        one, two = (read_artefact(tmp_path / n / folder, kind=kind) for n in ("one", "two"))
        # Not every weight: where its gradient is zero but for rounding, Adam takes a whole step.
        assert one.tensors.keys() == two.tensors.keys()
        far = [
            ~torch.isclose(two.tensors[name], tensor, atol=2e-5, rtol=1e-3).flatten()
            for name, tensor in one.tensors.items()
        ]
        assert torch.cat(far).float().mean() < 0.01
        curves = [pd.read_csv(tmp_path / n / folder / "log.csv") for n in ("one", "two")]
        pd.testing.assert_frame_equal(
            *(c.drop(columns="seconds") for c in curves), atol=1e-4, rtol=1e-3
        )
