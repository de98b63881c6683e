"""The rewritten network answers like the original, or is not used."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18

from mia_lightning.outputs.fuse import TinyConvolution, prepare_for_inference

SETTINGS = settings(max_examples=40)


def tell_apart(network):
    """Give batch norms statistics that a wrong folding would betray."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval().requires_grad_(False)


def kinds(network):
    return {type(module) for module in network.modules()}


@SETTINGS
@given(
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    stride=st.integers(1, 2),
    bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_tiny_convolution_is_the_convolution(channels, size, stride, bias, seed):
    torch.manual_seed(seed)
    convolution = nn.Conv2d(*channels, 3, stride, padding=1, bias=bias).requires_grad_(False)
    images = torch.randn(4, channels[0], *size)
    assert_close(TinyConvolution(convolution, size)(images), convolution(images), atol=1e-5, rtol=1e-5)


def test_fused_resnet_equals_original():
    torch.manual_seed(0)
    network = tell_apart(resnet18(num_classes=10))
    images = torch.randn(16, 3, 32, 32)
    fast = prepare_for_inference(network, images[:4])
    assert nn.BatchNorm2d not in kinds(fast)
    assert TinyConvolution in kinds(fast)
    assert_close(fast(images), network(images), atol=1e-4, rtol=1e-4)
    assert nn.BatchNorm2d in kinds(network), "the original was changed"


class Branches(nn.Module):
    """Its forward depends on the values, so that it cannot be traced."""

    def __init__(self):
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images):
        if images.sum() > 0:
            images = -images
        return self.normalization(self.convolution(images)).mean(dim=(2, 3))


class ReadTwice(nn.Module):
    """The convolution's output is read past the batch norm as well, so it must not be folded."""

    def __init__(self):
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images):
        maps = self.convolution(images)
        return (maps + self.normalization(maps)).mean(dim=(2, 3))


@pytest.mark.parametrize("kind", [Branches, ReadTwice])
def test_other_layers_stay_unchanged(kind):
    torch.manual_seed(0)
    network, images = tell_apart(kind()), torch.randn(5, 3, 8, 8)
    fast = prepare_for_inference(network, images)
    assert nn.BatchNorm2d in kinds(fast)
    assert_close(fast(images), network(images), atol=1e-6, rtol=1e-6)


def test_deviating_rewrite_is_discarded(monkeypatch):
    from mia_lightning.outputs import fuse as inference

    class Wrong(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network(images) * 1.01

    network, images = tell_apart(resnet18(num_classes=10)), torch.randn(4, 3, 32, 32)
    monkeypatch.setattr(inference, "_collapse", lambda traced, _: Wrong(traced))
    assert prepare_for_inference(network, images) is network
