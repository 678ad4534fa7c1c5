"""The autoencoder's own way through MONAI's blocks."""

import pytest
import torch
from torch import nn

from pipeline.nets import autoencoder
from pipeline.nets.autoencoder import Autoencoder


def network(**options):
    torch.manual_seed(0)
    return Autoencoder(
        channels=(8, 8, 16), latent_channels=3, num_res_blocks=1, norm_groups=4, **options
    )


def decoded(net, latent):
    latent = latent.clone().requires_grad_()
    volume = net.decode(latent)
    weights = [p for p in net.net.decoder.parameters() if p.requires_grad]
    return [volume, *torch.autograd.grad(volume.square().mean(), [latent, *weights])]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_voxel_is_repeated_before_a_convolution_and_all_comes_out_the_same(
    monkeypatch, checkpointing
):
    net, latent = network(checkpointing=checkpointing), torch.randn(2, 3, 5, 6, 4)
    repeated = []
    for module in net.modules():
        if isinstance(module, nn.Upsample):
            module.register_forward_hook(lambda *_: repeated.append(1))
    ours = decoded(net, latent)
    assert not repeated
    monkeypatch.setattr(autoencoder, "_repeated_convolution", lambda block: None)
    plain = decoded(net, latent)
    assert len(repeated) >= 2
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_upsampling_of_another_kind_is_left_as_it_is():
    net = network(transposed_upsampling=True)
    assert not any(autoencoder._repeated_convolution(b) for b in net.net.decoder.blocks)
    assert net.decode(torch.randn(1, 3, 4, 4, 4)).shape == (1, 1, 16, 16, 16)
