"""FLAIR through the BIDS-App: only if asked, told before any work, never mixed with T1w."""

from dataclasses import replace

import pytest

from pipeline.bids_app.group_level import gather
from pipeline.bids_app.participant_level import Request, run_participants
from pipeline.bids_app.work import ParticipantWork
from pipeline.cohort.manifest import read_manifest
from pipeline.stores.open_store import OpenStore
from schemas.errors import ContractError
from schemas.params import Params

FLAIR_NUMBERS = {"white_grey": -0.5, "grey_fluid": 2.5, "ncc": 0.4}


def of_flair(request: Request, folder: str = "", *, asked: bool = True) -> Request:
    """Return the request for FLAIR, in folders of its own."""
    changed = {
        "cohort": request.params.cohort.model_copy(update={"suffix": ("FLAIR",)}),
        "encode": request.params.encode.model_copy(update={"any_contrast": asked}),
        "embed": request.params.embed.model_copy(update={"any_contrast": asked}),
    }
    return replace(
        request,
        params=Params.model_validate(request.params.model_copy(update=changed)),
        work=request.work.with_name(f"work{folder}"),
        out_dir=request.out_dir.with_name(f"out{folder}"),
    )


@pytest.fixture
def flair(bids):
    """The dataset, with a FLAIR beside every T1w."""
    for path in bids.rglob("*_T1w.nii.gz"):
        path.with_name(path.name.replace("T1w", "FLAIR")).write_bytes(path.read_bytes())
    return bids


def test_another_contrast_than_the_models_is_refused_before_any_work(request_of, fake, flair):
    with pytest.raises(ContractError, match=r"FLAIR images.*trained on T1w") as caught:
        run_participants(of_flair(request_of("sub-01"), asked=False), "cpu")
    for name in ("encode.any_contrast", "embed.any_contrast"):
        assert f"--set {name}=true" in str(caught.value), "one line names both"
    assert fake.calls == []
    assert not request_of().work.exists()


def test_flair_ends_as_derivatives_of_flair_if_asked(request_of, fake, flair):
    fake.numbers = FLAIR_NUMBERS
    request = of_flair(request_of("sub-01", "sub-02"), "-flair")
    assert run_participants(request, "cpu").failed == {}
    assert fake.calls == ["sub-01_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz"]
    codes = OpenStore(request.work / "sub-01" / "data" / "semantics.zarr")
    assert codes.attributes.contrast == "FLAIR"
    assert list(request.out_dir.glob("sub-01/anat/*desc-preproc_FLAIR.nii.gz"))
    files = gather(flair, request.work, request.params.cohort)
    assert set(read_manifest(files.manifest)["contrast"]) == {"FLAIR"}
    with pytest.raises(ContractError, match=r"made of FLAIR images, this call takes T1w"):
        gather(flair, request.work, request_of().params.cohort)


def test_two_contrasts_share_neither_work_nor_output(request_of, fake, flair):
    run_participants(request_of("sub-01"), "cpu")
    fake.numbers = FLAIR_NUMBERS
    with pytest.raises(ContractError, match=r"sub-01: made of T1w images, this call takes FLAIR"):
        run_participants(of_flair(request_of("sub-01")), "cpu")
    assert run_participants(request_of("sub-01"), "cpu").done_before == 1
    other = replace(of_flair(request_of("sub-01"), "-flair"), out_dir=request_of().out_dir)
    failed = run_participants(other, "cpu").failed
    assert "of another model or contrast" in failed["sub-01"]


def test_a_call_that_changes_stores_and_fails_leaves_nothing_marked_as_done(
    request_of, fake, monkeypatch
):
    request = request_of("sub-01")
    run_participants(request, "cpu")
    preprocess = request.params.preprocess.model_copy(update={"bias_field": False})
    other = replace(request, params=request.params.model_copy(update={"preprocess": preprocess}))
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.bids_app.models.embed_latents", stop)
        assert run_participants(other, "cpu").failed
    assert not (ParticipantWork("sub-01", request.work / "sub-01").folder / "done.json").exists()
    assert run_participants(request, "cpu").done_before == 0, "its volumes are the other call's"


def stop(*_: object, **__: object) -> None:
    raise ContractError("the disk is full")
