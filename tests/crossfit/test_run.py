"""Cross-fitting of the tiny study: who saw whom, what is kept, what is refused."""

import json
import shutil

import numpy as np
import pytest

from pipeline.crossfit.alignment_scans import AlignmentScans, load_alignment
from pipeline.crossfit.run import cross_fit
from pipeline.crossfit.study_folds import make_folds
from pipeline.models.frozen import load_ldae
from pipeline.models.model_folder import read_config
from pipeline.runtime.digests import digest_of
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from pipeline.stores.out_of_fold import leave_out, read_out_of_fold
from pipeline.stores.verify import verify_store
from schemas.errors import ContractError, ParamsError
from schemas.params import CrossfitParams
from tests.support.tiny_models import CPU, LDAE


def again(out, latents_path, ldae_path, manifest, params, **options):
    reference = load_ldae(ldae_path, device=CPU)
    store = open_latents(latents_path)
    return cross_fit(store, manifest, reference, params, out, device=CPU, **options)


@pytest.mark.slow
def test_every_scan_is_embedded_by_a_model_that_never_saw_its_person(
    crossfit, latents_path, ldae_path, manifest, params
):
    latents, reference = open_latents(latents_path), load_ldae(ldae_path, device=CPU)
    codes = read_out_of_fold(crossfit / "semantics.zarr", ldae=reference.digest, latents=latents)
    assert codes is not None
    assert set(codes.row_of) == set(manifest["scan_id"])
    assert codes.folds == 2
    assert codes.fold[codes.row_of["sub-016"]] == codes.fold[codes.row_of["sub-017"]]
    folds = make_folds(manifest, latents, params)
    for fold in range(2):
        config = read_config(crossfit / f"fold-{fold + 1}" / "ldae" / "config.json")
        trained_on = folds.split_without(fold)
        assert config["inputs"]["split"] == digest_of(trained_on)
        held_out = {scan for scan, row in codes.row_of.items() if codes.fold[row] == fold}
        assert held_out.isdisjoint(trained_on["train"] + trained_on["val"])
        assert held_out | set(trained_on["train"] + trained_on["val"]) == set(codes.row_of)
        assert codes.digests[f"ldae_fold_{fold + 1}"] == config["weights_sha256"]
    assert not verify_store(crossfit / "semantics.zarr")


@pytest.mark.slow
def test_folds_start_where_the_study_does(
    tmp_path, trained, latents_path, ldae_path, manifest, params
):
    named = {
        stage: getattr(params, stage).model_copy(update={"start_from": trained / "ldae"})
        for stage in ("train_ldm", "train_ldae")
    }
    out = tmp_path / "crossfit"
    again(out, latents_path, ldae_path, manifest, params.model_copy(update=named))
    start = load_ldae(trained / "ldae", device=CPU).digest
    for stage in ("ldm", "ldae"):
        assert read_config(out / "fold-1" / stage / "config.json")["started_from"] == start


@pytest.mark.slow
def test_codes_are_those_of_the_folds_own_model_turned_into_the_references_space(
    crossfit, latents_path, ldae_path
):
    """Turning keeps distances: of the summaries, those between scans of one fold."""
    store, latents = OpenStore(crossfit / "semantics.zarr"), open_latents(latents_path)
    y_sem, fold = store.read("y_sem"), store.read("fold")
    ids = [scan for scan, row in store.row_of.items() if fold[row] == 1]
    own = load_ldae(crossfit / "fold-2" / "ldae", device=CPU)
    z_0 = own.net.diffusion.standardise(latents.load(ids).mean.float())
    expected = own.net.embed(z_0).detach().numpy()
    modes = len(own.net.encoder.modes.spread)
    found = y_sem[[store.row_of[scan] for scan in ids]]
    distances = [
        np.linalg.norm(codes[:, None, modes:] - codes[None, :, modes:], axis=-1)
        for codes in (found, expected)
    ]
    np.testing.assert_allclose(*distances, atol=1e-3)
    assert np.abs(found - expected).max() > 0.05


@pytest.mark.slow
def test_finished_folds_are_kept_and_a_lost_one_is_made_anew_the_same(
    tmp_path, crossfit, latents_path, ldae_path, manifest, params, caplog
):
    out = tmp_path / "crossfit"
    shutil.copytree(crossfit, out)
    kept = (out / "fold-1" / "ldae" / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(out / "fold-2")
    shutil.rmtree(out / "semantics.zarr")
    with caplog.at_level("INFO", logger="pipeline"):
        again(out, latents_path, ldae_path, manifest, params)
    assert "fold 2 of 2" in caplog.text
    assert (out / "fold-1" / "ldae" / "model.safetensors").stat().st_mtime_ns == kept
    codes = [OpenStore(folder / "semantics.zarr").read("y_sem") for folder in (crossfit, out)]
    np.testing.assert_array_equal(*codes)


@pytest.mark.slow
def test_ctrl_c_in_a_fold_keeps_its_steps(
    tmp_path, crossfit, latents_path, ldae_path, manifest, params, monkeypatch
):
    from pipeline.training.latent_modules import SemanticModule

    out = tmp_path / "crossfit"
    shutil.copytree(crossfit, out)
    shutil.rmtree(out / "fold-2" / "ldae")
    losses = SemanticModule.compute_losses

    def stopped(self, step):
        if step == 1:
            raise KeyboardInterrupt
        return losses(self, step)

    few = params.train_ldae.model_copy(update={"checkpoint_every": 1})
    params = params.model_copy(update={"train_ldae": few})
    shutil.rmtree(out / "fold-1" / "ldae")
    again(out, latents_path, ldae_path, manifest, params)
    shutil.rmtree(out / "fold-2" / "ldae")
    monkeypatch.setattr(SemanticModule, "compute_losses", stopped)
    with pytest.raises(KeyboardInterrupt):
        again(out, latents_path, ldae_path, manifest, params)
    assert (out / "fold-2" / "ldae.training" / "last.ckpt").is_file()
    monkeypatch.setattr(SemanticModule, "compute_losses", _only_step_1(losses))
    result = again(out, latents_path, ldae_path, manifest, params)
    assert result.folds == 2


def _only_step_1(losses):
    def compute(self, step):
        assert step == 1, "the step before is kept"
        return losses(self, step)

    return compute


@pytest.mark.slow
def test_figures_of_the_folds_are_written(crossfit):
    figures = json.loads((crossfit / "crossfit.json").read_text())
    assert (figures["folds"], figures["subjects"], figures["scans"]) == (2, 19, 20)
    assert sum(fold["scans"] for fold in figures["by_fold"]) == 20
    assert figures["aligned_on"] == "each fold's own training scans"
    assert set(figures["agreement"]) == {"modes", "summary"}
    assert figures["std"]["modes_reference_train"] > 0


@pytest.mark.slow
def test_alignment_scans_of_others_are_what_summaries_are_turned_on(
    tmp_path, crossfit, latents_path, ldae_path, manifest, params
):
    out = tmp_path / "crossfit"
    shutil.copytree(crossfit, out)
    mean = open_latents(latents_path).load(["sub-001", "sub-003", "sub-018"]).mean.float()
    scans = AlignmentScans(mean.flip(2), "digest of phantoms", "phantoms.zarr")
    result = again(out, latents_path, ldae_path, manifest, params, alignment=scans)
    assert result.aligned_on == "3 scans of phantoms.zarr"
    store = OpenStore(out / "semantics.zarr")
    assert store.attributes.digests["alignment"] == "digest of phantoms"
    before = OpenStore(crossfit / "semantics.zarr").read("y_sem")
    modes = 6
    np.testing.assert_array_equal(store.read("y_sem")[:, :modes], before[:, :modes])
    assert np.abs(store.read("y_sem") - before).max() > 1e-3


def test_no_folds_are_an_empty_result_at_once(tmp_path):
    leave_out(tmp_path / "crossfit")
    path = tmp_path / "crossfit" / "semantics.zarr"
    assert read_out_of_fold(path, ldae="any") is None
    with pytest.raises(ContractError, match="expected a Zarr store, found none"):
        read_out_of_fold(tmp_path / "elsewhere" / "semantics.zarr", ldae="any")


@pytest.mark.slow
def test_what_does_not_belong_together_is_refused_with_a_remedy(
    tmp_path, crossfit, latents_path, ldae_path, manifest, params
):
    many = params.model_copy(update={"crossfit": CrossfitParams(folds=20)})
    with pytest.raises(ParamsError, match=r"20 folds of 19 subjects .* set at most 19"):
        again(tmp_path / "x", latents_path, ldae_path, manifest, many)
    wide = LDAE.model_copy(update={"encoder": LDAE.encoder.model_copy(update={"dim": 14})})
    other = params.model_copy(update={"train_ldae": wide})
    with pytest.raises(ParamsError, match=r"y_sem of 12 numbers .* asks for 14"):
        again(tmp_path / "x", latents_path, ldae_path, manifest, other)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ContractError, match=r"space of another LDAE .* run `pipeline crossfit`"):
        read_out_of_fold(crossfit / "semantics.zarr", ldae="another")


def test_alignment_scans_of_the_study_or_of_another_autoencoder_are_refused(
    tmp_path, latents_path, autoencoder_path
):
    latents = open_latents(latents_path)
    with pytest.raises(ContractError, match=r"20 scans are of the study itself.*phantoms"):
        load_alignment(latents_path, latents)
    with pytest.raises(ContractError, match="expected a Zarr store"):
        load_alignment(tmp_path / "none.zarr", latents)
    other = _Other(latents)
    with pytest.raises(ContractError, match=r"another autoencoder.*encode the alignment"):
        load_alignment(latents_path, other)


class _Other:
    """The study's latents as another autoencoder would have made them."""

    def __init__(self, latents):
        self.path, self.latent_shape = latents.path, latents.latent_shape
        digests = {"autoencoder": "another"}
        self.attributes = latents.attributes.model_copy(update={"digests": digests})
