"""What the report reads: broken or wrong files are named."""

from pathlib import Path

import pytest

from pipeline.report.render import load_context
from schemas.errors import ContractError
from tests.support.report_study import PARAMS, render


@pytest.mark.slow
def test_figures_of_the_autoencoder_are_no_study(study: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"ms_ssim_scales": 3, "split": "test"}')
    with pytest.raises(ContractError, match="of `evaluate --what ae`"):
        render(study[0], PARAMS, evaluate=tmp_path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no manifest; run `pipeline cohort`"):
        load_context(params=PARAMS, manifest=tmp_path / "manifest.csv")


def test_missing_columns_of_the_manifest_are_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("scan_id,label\ns,s\n")
    with pytest.raises(ContractError, match="no column subject_id, split"):
        load_context(params=PARAMS, manifest=tmp_path / "manifest.csv")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "manifest.csv").write_text("scan_id,subject_id,split\ns,s,train\n")
    return tmp_path / "manifest.csv"


def test_a_model_called_ae_is_no_evaluation_of_one(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "ae").mkdir()
    (tmp_path / "ae" / "metrics.json").write_text('{"loss": 0.1}')
    context = load_context(params=PARAMS, manifest=manifest, evaluate=tmp_path / "evaluate")
    assert context.ae_quality is None


def test_damaged_metrics_are_named(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ContractError, match=r"metrics\.json: not JSON"):
        load_context(params=PARAMS, manifest=manifest, probe=tmp_path)
