"""Networks by name: torchvision classifiers, and any class or function the user can import."""

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError, suggest
from mia_lightning.security.imports import import_own

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


def build(architecture: str, num_classes: int | None, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return an untrained network; the global random state is left as it was.

    Args:
        architecture: A torchvision name or "package.module:Class".
        num_classes: Handed on where the class takes it.
        weights: Whether auxiliary heads exist is read from their names.

    Raises:
        MIAError: there is no such architecture, or it cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        if ":" in architecture:
            return _build_custom(architecture, num_classes)
        if architecture not in (known := names()):
            hint = suggest(architecture, [*known, "package.module:Class"])
            raise MIAError(f"--target.architecture {architecture!r} does not exist; {hint}")
        import torchvision

        options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
        if architecture in ("googlenet", "inception_v3"):
            options |= {
                "aux_logits": any(k.startswith(("aux1.", "AuxLogits.")) for k in weights),
                "init_weights": False,
            }
        network: nn.Module = torchvision.models.get_model(architecture, **options)
        return network


def untrained(architecture: str, num_classes: int, like: Mapping[str, Tensor], *, seed: int) -> nn.Module:
    """Return a network of the target's architecture with starting weights drawn from the seed.

    Args:
        architecture: As `Target.architecture` has it, or as `build` takes it.
        num_classes: Number of classes.
        like: The target's weights: they show a torchvision network's stem, and what is no starting point.
        seed: Drives the starting weights; the global random state is left as it was.

    Raises:
        MIAError: the architecture cannot be built anew, or comes trained.
    """
    if architecture.startswith("torch."):
        raise MIAError(
            "an exported program cannot be trained anew; name its network by --references.architecture "
            "package.module:Class"
        )
    name = architecture.partition(" (")[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(name, num_classes, like)
        torch.manual_seed(seed)
        if ":" not in name:
            fit_stem(network, like)
    floating = {key: tensor for key, tensor in network.state_dict().items() if tensor.ndim > 1}
    if floating and all(key in like and torch.equal(tensor, like[key]) for key, tensor in floating.items()):
        raise MIAError(
            f"{name} returns the target as it was trained; name a class or function that returns it untrained by "
            "--references.architecture package.module:Class"
        )
    return network.float()


def fit_stem(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Give a torchvision network the first convolution its weights ask for and return what was changed, in words.

    A ResNet with a 3x3 first kernel is the CIFAR form: stride 1 and no max-pooling.
    """
    from torchvision.models import ResNet

    convolutions = ((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    name, stem = next(convolutions, (None, None))
    found = weights.get(f"{name}.weight")
    if name is None or stem is None or found is None or found.ndim != 4 or found.shape[0] != stem.out_channels:
        return []
    changes: list[str] = []
    if isinstance(network, ResNet) and tuple(found.shape[2:]) == (3, 3):
        network.conv1 = nn.Conv2d(found.shape[1], stem.out_channels, 3, stride=1, padding=1, bias=False)
        network.maxpool = nn.Identity()
        changes.append("CIFAR stem")
    elif found.shape[1] != stem.in_channels and stem.groups == 1:
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, _with_channels(stem, found.shape[1]))
    if found.shape[1] != stem.in_channels:
        changes.append(f"{found.shape[1]} channel{'s' if found.shape[1] > 1 else ''}")
    return changes


def _with_channels(stem: nn.Conv2d, channels: int) -> nn.Conv2d:
    shape: Any = (stem.kernel_size, stem.stride, stem.padding, stem.dilation)
    kernel, stride, padding, dilation = shape
    return nn.Conv2d(channels, stem.out_channels, kernel, stride, padding, dilation, bias=stem.bias is not None)


def source_of(architecture: str) -> str:
    """Return the source text of a user's module, for it determines the function too; "" for torchvision's."""
    module = sys.modules.get(architecture.partition(":")[0]) if ":" in architecture else None
    try:
        return inspect.getsource(module) if module else ""
    except (OSError, TypeError):  # defined in a prompt, or compiled
        return ""


def _build_custom(architecture: str, num_classes: int | None) -> nn.Module:
    factory = _import(architecture)
    try:
        accepted = inspect.signature(factory).parameters
        named = "num_classes" in accepted
        network = factory(num_classes=num_classes) if named and num_classes is not None else factory()
    except Exception as error:
        raise MIAError(f"--target.architecture {architecture}: calling it failed: {_in_words(error)}") from error
    if not isinstance(network, nn.Module):
        raise MIAError(
            f"--target.architecture {architecture}: returned {type(network).__name__}, expected an nn.Module"
        )
    return network


def _import(architecture: str) -> Callable[..., object]:
    """Import what "package.module:Class" names."""
    module_name, _, attribute = architecture.partition(":")
    if os.getcwd() not in sys.path:  # console scripts leave the current folder out; last, so that it shadows nothing
        sys.path.append(os.getcwd())
    try:
        module = import_own(module_name)
    except MIAError:
        raise
    except Exception as error:
        raise MIAError(
            f"--target.architecture {architecture}: importing {module_name!r} failed: {_in_words(error)}"
        ) from (error)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        hint = suggest(attribute, public)
        raise MIAError(f"--target.architecture: {module_name} has no class or function {attribute!r}; {hint}")
    found: Callable[..., object] = factory
    return found


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
