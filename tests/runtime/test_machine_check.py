"""`pipeline doctor`: says what is there, and names the remedy for what is not."""

from collections import namedtuple
from importlib import metadata

from typer.testing import CliRunner

from pipeline.runtime import machine_check as health
from stages.cli import app


def test_a_complete_installation_passes(tmp_path):
    result = CliRunner().invoke(app, ["doctor", "--study", str(tmp_path / "new" / "study")])
    assert result.exit_code == 0, result.output
    assert "monai" in result.output


def test_doctor_tells_that_dicom_needs_dcm2niix(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.runtime.dcm2niix.shutil.which", lambda *_, **__: None)
    checks = {check.name: check for check in health.check_machine(tmp_path)}
    assert checks["dcm2niix"].status == "warn"
    assert "ldae-pipeline[dicom]" in checks["dcm2niix"].remedy


def test_what_is_missing_fails_with_its_remedy(tmp_path, monkeypatch):
    def version(name):
        if name == "zarr":
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(health.metadata, "version", version)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: usage(9, 9, 10**8))
    checks = {check.name: check for check in health.check_machine(tmp_path)}
    assert checks["zarr"].status == "fail"
    assert "pip install" in checks["zarr"].remedy
    assert checks["Disk"].status == "warn"
    assert checks["torch"].status == "ok"
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1
