"""Logits and penultimate features of any network in one pass."""

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError
from mia_lightning.targets.exported import Program
from mia_lightning.targets.wrapper import TargetNetwork

TOLERANCE = 1e-3
"""Largest difference of log-probabilities that rounding may make between a network and its last layer."""


class FeatureTap(nn.Module):
    """A network that also returns its penultimate features: (B, C, H, W) to logits (B, classes), features (B, D).

    Features are the input of `feature_layer` as vectors: flattened, or for a convolutional head averaged over
    positions. With None: timm's `forward_features`, the input of the last linear
    operation of a traced program, or else D = 0. Hooks live for one call only; works
    under autograd, inference mode, autocast, torch.compile and after a trace that keeps the submodule's name.

    Raises:
        MIAError: there is no such submodule, or the network's forward does not call it.
    """

    def __init__(self, network: nn.Module, feature_layer: str | None) -> None:
        super().__init__()
        self.feature_layer = feature_layer
        self.network = network
        if feature_layer is not None and feature_layer not in dict(network.named_modules()):
            raise MIAError(f"--target.feature_layer {feature_layer!r} is not a submodule of the target")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes) and features (B, D), in whatever float type the network ran in."""
        if self.feature_layer is not None:
            return self._by_hook(images, self.feature_layer)
        if isinstance(self.network, TargetNetwork):
            outputs, features = _untapped(self.network.network, self.network.inputs(images))
            return self.network.logits(outputs), features
        logits, features = _untapped(self.network, images)
        return logits, features

    def _by_hook(self, images: Tensor, name: str) -> tuple[Tensor, Tensor]:
        inputs: list[Tensor] = []

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs.append(_vectors(args[0] if args else next(iter(kwargs.values())), isinstance(module, nn.Conv2d)))

        layer = self.network.get_submodule(name)
        handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            logits = self.network(images)
        finally:
            handle.remove()
        if not inputs:
            raise MIAError(f"--target.feature_layer {self.feature_layer!r} is not called by the target's forward")
        return logits, inputs[-1]


def ends_with_head(
    network: nn.Module,
    feature_layer: str | None,
    class_order: tuple[int, ...] | None,
    sample: Tensor,
    *,
    multi_label: bool = False,
) -> bool:
    """Whether the class scores of a network are those of its last linear layer, up to a constant per record.

    Args:
        network: Returns logits (B, classes).
        feature_layer: Name of its last layer.
        class_order: Output of that layer for each class; None is the identity.
        sample: (B, ...) inputs.
        multi_label: Whether each output is that of an independent label.
    """
    layer = dict(network.named_modules()).get(feature_layer or "")
    if not isinstance(layer, nn.Linear):
        return False
    with torch.inference_mode():
        logits, features = FeatureTap(network, feature_layer)(sample)
        of_head = layer(features)
    if of_head.shape[1] == 1:  # as `to_logits` returns a single logit
        of_head = torch.cat([torch.zeros_like(of_head), of_head], dim=1)
    of_head = of_head if class_order is None else of_head[:, list(class_order)]
    if of_head.shape != logits.shape:
        return False
    if multi_label:  # log-odds, of which no constant may be added
        return torch.allclose(of_head, logits, rtol=TOLERANCE, atol=TOLERANCE)
    return torch.allclose(of_head.log_softmax(dim=1), logits.log_softmax(dim=1), rtol=TOLERANCE, atol=TOLERANCE)


def check_layer(network: nn.Module, layer: str) -> str:
    """Return the name of a submodule. Raises MIAError: there is none."""
    names = [name for name, _ in network.named_modules() if name]
    if layer not in names:
        close = get_close_matches(layer, names, n=3, cutoff=0.0)
        raise MIAError(f"--target.feature_layer {layer!r} does not exist; the closest names are {', '.join(close)}")
    return layer


def _untapped(network: nn.Module, images: Tensor) -> tuple[Any, Tensor]:
    """Return the network's outputs, and features where it has a method of its own for them."""
    if isinstance(network, Program):
        return network.with_features(images)
    if hasattr(network, "forward_features"):
        return _by_convention(network, images)
    return network(images), images.new_empty(len(images), 0)


def _vectors(features: Tensor, pool: bool) -> Tensor:
    return features.mean(dim=(2, 3)) if pool and features.ndim == 4 else features.flatten(1)


def _by_convention(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Follow timm: trunk once, then the head with and without its classifier."""
    module: Any = network
    trunk = module.forward_features(images)
    if hasattr(module, "forward_head"):
        return module.forward_head(trunk), module.forward_head(trunk, pre_logits=True).flatten(1)
    return module(images), _vectors(trunk, pool=True)  # without a head to call, only a second pass gives the logits


def probe(network: nn.Module, sample: Tensor) -> tuple[object, str | None]:
    """Return the output of a network on a sample, and the name of its classifier.

    The classifier is the last `nn.Linear` or 1x1 convolution called, if its outputs are the logits. A convolution may
    be followed by an activation and pooling (SqueezeNet); then the number of its outputs decides.

    Args:
        network: In eval mode; run once.
        sample: (B, C, H, W) float32, not constant.
    """
    calls: list[tuple[str, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda _module, _args, output, name=name: calls.append((name, output)))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1})
    ]
    try:
        with torch.inference_mode():
            logits = network(sample)
    finally:
        for handle in handles:
            handle.remove()
    return logits, _classifier(calls, logits) if isinstance(logits, Tensor) and calls else None


def _classifier(calls: list[tuple[str, Tensor]], logits: Tensor) -> str | None:
    equal = [name for name, output in calls if torch.equal(output.flatten(1), logits.flatten(1))]
    name, output = calls[-1]
    fits = output.ndim in (2, 4) and output.shape[1] in (logits.shape[1], logits.shape[1] - 1)  # one logit of two
    return equal[-1] if equal else name if fits else None
