"""Networks by name: torchvision classifiers, and any class or function the user can import."""

import inspect
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError, suggest
from mia_lightning.targets import libraries
from mia_lightning.targets.base import Stem, TargetForm
from mia_lightning.targets.estimators import EstimatorNetwork, is_estimator
from mia_lightning.targets.imported import first_line, import_callable
from mia_lightning.targets.wrapper import wrap

# (blocks per stage, bottleneck, shape of the first block's 3x3 convolution) of every ResNet in torchvision
_RESNETS: dict[tuple[tuple[int, ...], bool, tuple[int, ...]], str] = {
    ((2, 2, 2, 2), False, (64, 64, 3, 3)): "resnet18",
    ((3, 4, 6, 3), False, (64, 64, 3, 3)): "resnet34",
    ((3, 4, 6, 3), True, (64, 64, 3, 3)): "resnet50",
    ((3, 4, 23, 3), True, (64, 64, 3, 3)): "resnet101",
    ((3, 8, 36, 3), True, (64, 64, 3, 3)): "resnet152",
    ((3, 4, 6, 3), True, (128, 128, 3, 3)): "wide_resnet50_2",
    ((3, 4, 23, 3), True, (128, 128, 3, 3)): "wide_resnet101_2",
    ((3, 4, 6, 3), True, (128, 4, 3, 3)): "resnext50_32x4d",
    ((3, 4, 23, 3), True, (256, 8, 3, 3)): "resnext101_32x8d",
    ((3, 4, 23, 3), True, (256, 4, 3, 3)): "resnext101_64x4d",
}

STEMS: dict[Stem, tuple[int, bool]] = {
    "imagenet": (2, True),
    "cifar": (1, False),
    "stride1_pool": (1, True),
    "stride2_no_pool": (2, False),
}
"""Stride of the first convolution, and whether max-pooling follows it."""


def names() -> list[str]:
    """Return the names of torchvision's classifiers, sorted."""
    import torchvision

    return sorted(torchvision.models.list_models(module=torchvision.models))


def detect(weights: Mapping[str, Tensor]) -> str | None:
    """Return the torchvision ResNet these weights belong to, or None."""
    if not {"conv1.weight", "layer1.0.conv2.weight", "layer4.0.conv1.weight", "fc.weight"} <= weights.keys():
        return None
    blocks = [{name.split(".")[1] for name in weights if name.startswith(f"layer{stage}.")} for stage in (1, 2, 3, 4)]
    shape = tuple(weights["layer1.0.conv2.weight"].shape)
    return _RESNETS.get((tuple(map(len, blocks)), "layer1.0.conv3.weight" in weights, shape))


def build(
    architecture: str,
    num_classes: int | None,
    weights: Mapping[str, Tensor],
    hyper_parameters: Mapping[str, object] | None = None,
) -> nn.Module:
    """Return an untrained network; the global random state is restored.

    Args:
        architecture: A torchvision name, "timm:NAME" or "package.module:Class".
        num_classes: Passed on where the class takes it.
        weights: Whether auxiliary heads exist is read from their names.
        hyper_parameters: Plain values saved by Lightning; a LightningModule gets those that it takes, any other class
            only those that it requires.

    Raises:
        MIAError: there is no such architecture, or it cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        if libraries.is_library(architecture):
            return libraries.build(architecture, num_classes, weights, hyper_parameters or {})
        if ":" in architecture:
            return _build_custom(architecture, num_classes, hyper_parameters or {})
        if architecture not in (available := names()):
            hint = suggest(architecture, [*available, "package.module:Class"])
            raise MIAError(f"--target.architecture {architecture!r} does not exist; {hint}")
        import torchvision

        options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
        if architecture in ("googlenet", "inception_v3"):
            has_auxiliary = any(name.startswith(("aux1.", "AuxLogits.")) for name in weights)
            options |= {"aux_logits": has_auxiliary, "init_weights": False}
        network: nn.Module = torchvision.models.get_model(architecture, **options)
        return network


def untrained(
    architecture: str,
    num_classes: int,
    like: Mapping[str, Tensor],
    *,
    seed: int,
    form: TargetForm | None = None,
    hyper_parameters: Mapping[str, object] | None = None,
) -> nn.Module:
    """Return a network of the target's architecture with initial weights drawn from the seed.

    Args:
        architecture: As `Target.architecture` has it, or as `build` takes it.
        num_classes: Number of classes.
        like: The target's weights: they determine a torchvision network's stem, and which weights are not initial.
        seed: Drives the initial weights; the global random state is restored.
        form: The target's preprocessing and kind of output, which the network shares.
        hyper_parameters: As in `build`.

    Raises:
        MIAError: the architecture cannot be built again, or returns a trained network.
    """
    if architecture.startswith("torch."):
        raise MIAError(
            "an exported program cannot be trained again; name its network by --references.architecture "
            "package.module:Class"
        )
    name, form = architecture.partition(" (")[0], form or TargetForm()
    outputs = 1 if form.output in ("one_logit", "one_probability") else num_classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(name, outputs, like, hyper_parameters)
        torch.manual_seed(seed)
        if ":" not in name:
            fit_stem(network, like, form.stem)
    floating = {key: tensor for key, tensor in network.state_dict().items() if tensor.ndim > 1}
    if floating and all(key in like and torch.equal(tensor, like[key]) for key, tensor in floating.items()):
        refuse_trained(name)
    return wrap(network.float(), form)


def refuse_trained(architecture: str, seed: int = 0) -> NoReturn:
    """Raise MIAError for an architecture without untrained weights, from any seed."""
    raise MIAError(
        f"{architecture} returns the target as it was trained; name a class or function that returns it untrained by "
        "--references.architecture package.module:Class"
    )


def fit_stem(network: nn.Module, weights: Mapping[str, Tensor], stem: Stem = "auto") -> list[str]:
    """Give a torchvision network the first convolution that its weights need and return a description of the changes.

    A ResNet with a 3x3 first kernel gets the CIFAR form, stride 1 and no max-pooling, unless `stem` names another.
    """
    from torchvision.models import ResNet

    convolutions = ((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    name, first = next(convolutions, (None, None))
    kernel = weights.get(f"{name}.weight")
    if name is None or first is None or kernel is None or kernel.ndim != 4 or kernel.shape[0] != first.out_channels:
        return []
    changes: list[str] = []
    channels = int(kernel.shape[1])
    if isinstance(network, ResNet):
        side, is_small = int(kernel.shape[2]), tuple(kernel.shape[2:]) == (3, 3)
        if side != first.kernel_size[0] or channels != first.in_channels:
            padding = side // 2
            network.conv1 = nn.Conv2d(channels, first.out_channels, side, stride=2, padding=padding, bias=False)
        if stem != "auto" or is_small:
            changes.append(set_stem(network, "cifar" if stem == "auto" else stem))
    elif stem != "auto":
        raise MIAError(f"--target.stem {stem} applies to torchvision ResNets, not to {type(network).__name__}")
    elif channels != first.in_channels and first.groups == 1:
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, _with_channels(first, channels))
    if channels != first.in_channels:
        changes.append(f"{channels} channel{'s' if channels > 1 else ''}")
    return changes


def set_stem(network: nn.Module, stem: Stem) -> str:
    """Set stride and pooling of a torchvision ResNet's first layers and return their description."""
    stride, pools = STEMS[stem]
    network.conv1.stride = (stride, stride)  # type: ignore[assignment]
    network.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pools else nn.Identity()
    return {"cifar": "CIFAR stem", "imagenet": "ImageNet stem"}.get(stem, f"stem {stem}")


def stem_of(network: nn.Module) -> Stem | None:
    """Return the stem of a torchvision ResNet, None for other networks."""
    from torchvision.models import ResNet

    if not isinstance(network, ResNet):
        return None
    form = (int(network.conv1.stride[0]), not isinstance(network.maxpool, nn.Identity))
    return next((stem for stem, value in STEMS.items() if value == form), None)


def _with_channels(first: nn.Conv2d, channels: int) -> nn.Conv2d:
    shape: Any = (first.kernel_size, first.stride, first.padding, first.dilation)
    kernel, stride, padding, dilation = shape
    return nn.Conv2d(channels, first.out_channels, kernel, stride, padding, dilation, bias=first.bias is not None)


def _build_custom(architecture: str, num_classes: int | None, saved: Mapping[str, object]) -> nn.Module:
    factory = import_callable(architecture, "--target.architecture")
    try:
        network = factory(**_arguments(factory, num_classes, saved))
    except Exception as error:
        raise MIAError(f"--target.architecture {architecture}: calling it failed: {first_line(error)}") from error
    if is_estimator(network):
        return EstimatorNetwork(network)
    if not isinstance(network, nn.Module):
        raise MIAError(
            f"--target.architecture {architecture}: returned {type(network).__name__}, expected an nn.Module or an "
            "estimator with predict_proba"
        )
    return network


def _arguments(factory: Any, num_classes: int | None, saved: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments to build a network with: its number of classes, and saved hyper-parameters."""
    parameters = inspect.signature(factory).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if is_lightning_module(factory):
        arguments = {name: value for name, value in saved.items() if name in parameters or takes_all}
    else:
        required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
        arguments = {name: saved[name] for name in required if name in saved}
    if "num_classes" in parameters and num_classes is not None:
        arguments["num_classes"] = num_classes
    return arguments


def is_lightning_module(factory: object) -> bool:
    """Whether a class is a LightningModule, of `lightning` or `pytorch_lightning`, without importing either."""
    bases = inspect.getmro(factory) if inspect.isclass(factory) else ()
    return any(base.__name__ == "LightningModule" for base in bases)
