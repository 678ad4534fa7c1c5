"""Weights of others are loaded strictly."""

import numpy as np
import pytest
import torch
from monai.networks.nets.resnet import resnet10

from pipeline.metrics.distribution_distances import frechet_distance
from pipeline.models.pretrained import load_medicalnet, medicalnet_features
from schemas.errors import ContractError
from tests.support.tiny_models import CPU


@pytest.mark.slow
def test_medicalnet_weights_are_loaded_strictly(tmp_path):
    settings = {"spatial_dims": 3, "n_input_channels": 1, "feed_forward": False}
    net = resnet10(**settings, shortcut_type="B", bias_downsample=False)
    weights = {f"module.{name}": value for name, value in net.state_dict().items()}
    extra = {"module.conv_seg.0.weight": torch.zeros(1)}
    torch.save({"state_dict": weights | extra}, tmp_path / "net.pth")
    loaded = load_medicalnet(tmp_path / "net.pth", CPU)
    volumes = torch.rand(3, 24, 26, 28)
    features = medicalnet_features(loaded, volumes, CPU)
    assert features.shape == (3, 512)
    brain = (volumes[:1] - volumes[0].mean()) / volumes[0].std()
    np.testing.assert_allclose(features[0], net.eval()(brain[None]).flatten().detach(), rtol=1e-3)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-4)
    torch.save({"state_dict": {"module.odd": torch.zeros(1)}}, tmp_path / "odd.pth")
    with pytest.raises(ContractError, match="weights do not fit the architecture"):
        load_medicalnet(tmp_path / "odd.pth", CPU)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ContractError, match=r"text\.pth: not a checkpoint"):
        load_medicalnet(tmp_path / "text.pth", CPU)
