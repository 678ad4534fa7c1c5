"""A dataset of four people, and a stand-in for the work on one image."""

from pathlib import Path

import pytest

from pipeline.bids_app.participant_level import Request
from pipeline.imaging import preprocess_scan as chain
from schemas.params import Params
from tests.support.bids_dataset import Chain, make_dataset, make_models
from tests.support.made_once import MadeOnce
from tests.support.plain_pictures import draw_nothing


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "bids")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Chain:
    draw_nothing(monkeypatch)
    fake = Chain()
    monkeypatch.setattr(chain, "preprocess_scan", fake)
    return fake


@pytest.fixture(scope="session")
def models(made_once: MadeOnce) -> Path:
    """Return a folder with `ae` and `ldae`; never write into it."""
    return made_once("models-of-the-bids-app", make_models)


@pytest.fixture
def request_of(bids: Path, tmp_path: Path, models: Path):
    """Return a function that makes a request about participants."""

    def make(*participants: str, sessions: tuple[str, ...] = (), out: str = "out") -> Request:
        params = Params()
        encode = params.encode.model_copy(update={"precision": "fp32", "chunk_scans": 8})
        return Request(
            bids_dir=bids,
            out_dir=tmp_path / out,
            work=tmp_path / "work",
            participants=list(participants),
            sessions=list(sessions),
            params=params.model_copy(update={"encode": encode}),
            autoencoder=models / "ae",
            ldae=models / "ldae",
        )

    return make
