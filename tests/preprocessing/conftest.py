"""Preprocessing with a stand-in for the work on one scan."""

import pytest

from pipeline.imaging import preprocess_scan as chain
from tests.support.fake_chain import Chain


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Chain:
    fake = Chain()
    monkeypatch.setattr(chain, "preprocess_scan", fake)
    return fake
