"""Inference rewriting: convolution and batch-norm fusion, with the same outputs up to rounding."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference of logits that rounding may make, relative to the largest logit."""


def prepare_for_inference(network: nn.Module, sample: Tensor) -> nn.Module:
    """Return the network with batch normalization folded into the convolutions before it and tiny maps collapsed.

    The result is for inputs of the sample's size only. It is compared with the original on the sample; where a network
    cannot be traced, or the outputs differ by more than rounding, the original is returned.

    Args:
        network: In eval mode, on the CPU.
        sample: (B, C, H, W) normalized images.
    """
    with torch.inference_mode(False), torch.no_grad():
        expected = network(sample)
        try:
            fast = _collapse(_fold(copy.deepcopy(network)), sample)
            outputs = fast(sample)
        except Exception as error:  # tracing runs the user's own forward, which may refuse in any way
            log.debug("the network is not rewritten: %s", error)
            return network.to(memory_format=torch.channels_last)
        worst = float((outputs - expected).abs().max() / expected.abs().max().clamp(min=1))
    if not worst <= TOLERANCE:
        log.info("the rewritten network differs by %.1e, so the original is used", worst)
        return network.to(memory_format=torch.channels_last)
    return fast.to(memory_format=torch.channels_last)


def _fold(network: nn.Module) -> fx.GraphModule:
    """Fold each eval-mode batch normalization that directly follows a convolution read by nothing else."""
    traced = fx.symbolic_trace(network)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        convolution, normalization = modules.get(str(source.target)), modules.get(str(node.target))
        if (
            type(convolution) is nn.Conv2d
            and type(normalization) is nn.BatchNorm2d
            and normalization.track_running_stats
        ):
            traced.set_submodule(str(source.target), fuse_conv_bn_eval(convolution, normalization))
            modules = dict(traced.named_modules())
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _collapse(network: fx.GraphModule, sample: Tensor) -> fx.GraphModule:
    """Replace each convolution over a map so small that most of its taps only ever meet padding."""
    sizes: dict[str, tuple[int, ...]] = {}
    convolutions = [(name, module) for name, module in network.named_modules() if type(module) is nn.Conv2d]
    hooks = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: sizes.__setitem__(name, tuple(inputs[0].shape[2:]))
        )
        for name, module in convolutions
    ]
    network(sample[:2])
    for hook in hooks:
        hook.remove()
    for name, module in convolutions:
        if name in sizes and _is_tiny(module, sizes[name]):
            network.set_submodule(name, TinyConvolution(module, sizes[name]))
    return network


def _is_tiny(convolution: nn.Conv2d, size: tuple[int, ...]) -> bool:
    """Whether the map has at most 4 positions, fewer than the kernel has taps, and padding is of zeros."""
    positions, taps = size[0] * size[1], convolution.kernel_size[0] * convolution.kernel_size[1]
    plain = convolution.groups == 1 and convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    return plain and positions <= 4 and positions < taps


class TinyConvolution(nn.Module):
    """A convolution over a fixed small map, computed as one matrix product.

    Every output position is a linear function of all input positions; the matrix is the convolution of unit maps, so
    taps that only meet padding cost nothing.
    """

    matrix: Tensor

    def __init__(self, convolution: nn.Conv2d, size: tuple[int, ...]) -> None:
        super().__init__()
        inputs = convolution.in_channels * size[0] * size[1]
        units = torch.eye(inputs, device=convolution.weight.device).view(inputs, convolution.in_channels, *size)
        output = F.conv2d(
            units, convolution.weight, None, convolution.stride, convolution.padding, convolution.dilation
        )
        self.shape = tuple(output.shape[1:])
        self.register_buffer("matrix", output.flatten(1).T.contiguous())
        positions = self.shape[1] * self.shape[2]
        bias = convolution.bias
        self.bias = None if bias is None else nn.Parameter(bias.repeat_interleave(positions), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution returns, (B, out, H', W')."""
        return F.linear(x.flatten(1), self.matrix, self.bias).view(len(x), *self.shape)
