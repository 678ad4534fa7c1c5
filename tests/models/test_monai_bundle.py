"""The exported bundle: run by MONAI's own command, read back by import-ae."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.models.conversion.monai_export import export_monai_bundle
from pipeline.models.conversion.monai_import import import_autoencoder
from pipeline.models.frozen import load_autoencoder
from tests.support.volumes import SHAPE, smooth_volume

CPU = torch.device("cpu")


@pytest.fixture
def bundle(tmp_path, autoencoder_path):
    export_monai_bundle(autoencoder_path, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.slow
def test_monais_own_command_reconstructs_as_the_pipeline_does(bundle, autoencoder_path):
    volumes = [smooth_volume(seed).astype(np.float32) / 255 for seed in (1, 2)]
    (bundle / "input").mkdir()
    for i, volume in enumerate(volumes):
        image = nib.Nifti1Image(volume, np.diag([3.0, 3, 3, 1]))
        nib.save(image, bundle / "input" / f"scan{i}.nii.gz")
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"],
        cwd=bundle,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    net = load_autoencoder(autoencoder_path, device=CPU).net
    for i, volume in enumerate(volumes):
        made = nib.load(bundle / "output" / f"scan{i}_reconstruction.nii.gz").get_fdata()
        expected = net.decode(net.encode(torch.from_numpy(volume)[None, None])[0]).clamp(0, 1)
        np.testing.assert_allclose(made, expected[0, 0].detach().numpy(), atol=1e-5)


def test_an_exported_bundle_imports_as_what_it_was(bundle, tmp_path, autoencoder_path):
    import_autoencoder(bundle, tmp_path / "back", device=CPU)
    back, before = (load_autoencoder(p, device=CPU) for p in (tmp_path / "back", autoencoder_path))
    torch.testing.assert_close(back.net.state_dict(), before.net.state_dict(), atol=0, rtol=0)
    assert back.grid == before.grid
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    assert image["spatial_shape"] == list(SHAPE)
