"""Weights of a checkpoint in a network of their architecture, with the stem and the classes that they have."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError, printable
from mia_lightning.targets import architectures, weight_sets
from mia_lightning.targets.base import LoadOptions
from mia_lightning.targets.weights import Checkpoint

MOST_CLASSES = 100_000
"""Largest number of classes that is read from the weights without `--target.num_classes`."""

SAVED_WITH = {
    ".parametrizations.": "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
    "weight_orig": "torch.nn.utils.prune.remove(layer, 'weight')",
    "weight_g": "torch.nn.utils.remove_weight_norm(layer)",
    "lora_": "model.merge_and_unload(), which merges the adapters",
}
"""Part of a name that a library adds to a layer's weights, and the call that takes it away."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A network with room for these weights, which are not in it yet."""

    network: nn.Module
    weights: dict[str, Tensor]
    changes: list[str]
    notes: list[str]
    other_weights: tuple[str, ...] = ()


def torchvision_names(file: Checkpoint, source: str) -> tuple[Checkpoint, list[str]]:
    """Return a ResNet's weights by torchvision's names where its head or shortcuts have others, and notes.

    Those of common CIFAR code (`linear`, `shortcut`), and heads within a Sequential (`fc.1`) of one linear layer.
    """
    names = next((n for n in file.tensors if f".{n}".endswith(".layer1.0.conv2.weight")), None)
    prefix = "" if names is None else names.removesuffix("layer1.0.conv2.weight")
    outer = [n.removeprefix(prefix) for n in file.tensors if n.startswith(prefix) and ".layer" not in f".{n}"]
    heads = [n for n in outer if re.fullmatch(r"(fc|linear|classifier|head)(\.\d+)?\.weight", n)]
    head = heads[0].removesuffix(".weight") if len(heads) == 1 and names else "fc"
    matrix = file.tensors.get(f"{prefix}{head}.weight")
    if head == "fc" or matrix is None or matrix.ndim != 2:
        return file, []
    renamed = {
        name.replace(f"{prefix}{head}.", f"{prefix}fc.", 1).replace(".shortcut.", ".downsample."): tensor
        for name, tensor in file.tensors.items()
    }
    if len(renamed) < len(file.tensors):
        return file, []
    return replace(file, tensors=renamed), [f"{source}: its last layer {prefix}{head} is read as torchvision's fc"]


def detect(tensors: Mapping[str, Tensor], source: str) -> str:
    """Return the torchvision ResNet that weights belong to. Raises MIAError: to none."""
    candidates = weight_sets.anchored(tensors, "layer1.0.conv2.weight")
    name = next((name for item in candidates if (name := architectures.detect(item))), None)
    if name is None:
        first = ", ".join(list(tensors)[:3])
        raise MIAError(
            f"{source}: no torchvision ResNet, so its network is unknown (it begins {first}); give "
            "--target.architecture: a torchvision name or package.module:Class"
        )
    return name


def fit(name: str, file: Checkpoint, options: LoadOptions, source: str) -> Fitted:
    """Return the network for the stem and the classes that the weights have.

    The last matrix of the file is a guess of the head: where it leaves heads of another size, their number of rows is
    the number of classes.

    Raises:
        MIAError: the weights do not fit the architecture, or an option does not fit the weights.
    """
    guess = options.num_classes or last_rows(file.tensors)
    if options.num_classes is None and guess > MOST_CLASSES:  # before a network of that size is built
        raise MIAError(f"{source}: its last matrix has {guess:,} rows, too many for classes; give --target.num_classes")
    fitted = _fit_once(name, file, options, guess, source)
    rows = _other_rows(fitted, guess)
    if rows is None or rows > MOST_CLASSES:
        _check_shapes(fitted, name, source)
        return fitted
    if options.num_classes not in (None, rows) and not (rows == 1 and options.num_classes == 2):
        raise MIAError(
            f"{source}: its classifier has {rows} classes, but --target.num_classes is {options.num_classes}"
        )
    fitted = _fit_once(name, file, options, rows, source)
    _check_shapes(fitted, name, source)
    return fitted


def _fit_once(name: str, file: Checkpoint, options: LoadOptions, classes: int, source: str) -> Fitted:
    network = architectures.build(name, classes, file.tensors, file.hyper_parameters)
    sets = weight_sets.weight_sets(file.tensors, network)
    if options.num_classes is not None and any(item.fits(network) for item in sets):
        sets = [item for item in sets if item.fits(network)]
    renaming = None if sets else weight_sets.renamed_module(file.tensors, network)
    if renaming is not None:
        sets = weight_sets.weight_sets(renaming[0], network)
    if not sets:
        _refuse(network, weight_sets.closest(file.tensors, network.state_dict()), name, source)
    taken, notes = weight_sets.choose(sets, options.weights, source)
    notes += [f"{source}: its {printable(renaming[1])}"] if renaming is not None else []
    unexpected = [key for key in taken.left_out if not weight_sets.is_outside(key, network.state_dict())]
    if unexpected:
        _refuse(network, {**taken.tensors, **{key: torch.empty(0) for key in unexpected}}, name, source)
    is_own = ":" in name
    changes = [] if is_own else architectures.fit_stem(network, taken.tensors, options.form.stem)
    if is_own and options.form.stem != "auto":
        raise MIAError(f"--target.stem {options.form.stem} applies to torchvision ResNets, not to {name}")
    return Fitted(network, taken.tensors, changes, notes, weight_sets.others(sets, taken))


def last_rows(tensors: Mapping[str, Tensor]) -> int:
    """Return the rows of the last matrix, 1 without any."""
    return next((int(tensor.shape[0]) for tensor in reversed(list(tensors.values())) if tensor.ndim >= 2), 1)


def _other_rows(fitted: Fitted, guess: int) -> int | None:
    """Return the rows of the head in the file where they are not the guess and the rest of its shape agrees."""
    heads = [
        (stored.shape[0], tensor.shape[0])
        for name, tensor in fitted.network.state_dict().items()
        if (stored := fitted.weights.get(name)) is not None
        and tensor.ndim >= 2
        and stored.shape != tensor.shape
        and stored.shape[1:] == tensor.shape[1:]
    ]
    return int(heads[-1][0]) if heads and all(built == guess for _, built in heads) else None


def _check_shapes(fitted: Fitted, name: str, source: str) -> None:
    expected = fitted.network.state_dict()
    if any(tensor.shape != expected[key].shape for key, tensor in fitted.weights.items()):
        _refuse(fitted.network, fitted.weights, name, source)


def _refuse(network: nn.Module, tensors: Mapping[str, Tensor], name: str, source: str) -> NoReturn:
    """Raise one sentence that names the first differences between a network and weights.

    Batch counters are optional: they are unused in eval mode, and old checkpoints do not have them.
    """
    expected = network.state_dict()
    missing = [key for key in expected if key not in tensors and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in tensors if key not in expected]
    shapes = [
        f"{key} (expected {tuple(tensor.shape)}, found {tuple(tensors[key].shape)})"
        for key, tensor in expected.items()
        if key in tensors and tensors[key].shape != tensor.shape
    ]
    parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    differences = "; ".join(f"{words}: {_first_three(keys)}" for words, keys in parts if keys)
    likely = architectures.detect(tensors)
    advice = (
        f"the weights look like {likely}, try --target.architecture {likely}"
        if likely not in (None, name)
        else ("check --target.architecture")
    )
    for mark, fix in SAVED_WITH.items():
        if any(mark in key for key in unexpected):
            advice = f"before saving, call {fix}"
    raise MIAError(f"{source}: the weights do not fit {name} ({differences}); {advice}")


def _first_three(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + rest
