"""The rows that need a GPU, on small sizes without one: that they run, not how fast."""

import pytest
import torch

from benchmarks.framework.harness import race
from benchmarks.rows import gpu_inference, gpu_training
from benchmarks.studies import train_steps
from schemas.params import Params

GPU_ROWS = [row for module in (gpu_training, gpu_inference) for row in module.ROWS]


@pytest.fixture
def tiny(monkeypatch):
    """The paper preset with everything small, and the yardsticks as well."""
    small = {"base_channels": 8, "num_res_blocks": 1}
    params = Params.model_validate(
        {
            "preprocess": {"grid": {"shape": [32, 32, 32], "zooms": 6.0}},
            "train_ae": {
                "channels": [8, 16],
                "adversarial": {"weight": 0.1, "channels": 8, "layers": 2},
            },
            "train_ldm": {"denoiser": small},
            "train_ldae": {
                "batch_size": 2,
                "encoder": {"channels": [8], "dim": 16, "modes": 4, "tissue_modes": 0},
            },
            "evaluate": {
                "num_inference_steps": 2,
                "voxel_dae": {
                    "train_ldm": {"denoiser": small},
                    "train_ldae": {
                        "encoder": {"channels": [8, 8, 8], "dim": 16, "modes": 4, "tissue_modes": 0}
                    },
                },
            },
        }
    )
    for module in (gpu_training, gpu_inference):
        monkeypatch.setattr(module, "paper", lambda: params)
        monkeypatch.setattr(module, "race", lambda ways, **_: race(ways, rounds=1, warmup=0))
    convnext = {"channels": (4, 4, 8, 8), "depths": (1, 1, 1, 1)}
    monkeypatch.setattr(train_steps, "CONVNEXT_SMALL", convnext)
    for name, value in {"SIDE": 64, "COPIED": 1024, "BATCH": 2, "FITS": 1, "SLICES": 2}.items():
        monkeypatch.setattr(gpu_training, name, value)
    for name, value in {"SCANS": 4, "FEW": 2, "BATCH": 2, "STEPS": 1}.items():
        monkeypatch.setattr(gpu_inference, name, value)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="measured in earnest with a GPU")
@pytest.mark.parametrize("row", GPU_ROWS, ids=lambda row: row.name)
def test_rows_for_gpus_run(row, tiny, tmp_path):
    assert row.gpu_only
    measured = row.measure(tmp_path)
    assert measured.value > 0
    assert all(seconds for seconds in measured.rounds.values())
