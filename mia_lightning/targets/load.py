"""From a checkpoint file to a target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError
from mia_lightning.targets import architectures, weights
from mia_lightning.targets import key_prefixes as prefixes
from mia_lightning.targets.base import Target
from mia_lightning.targets.checks import image_channels
from mia_lightning.targets.exported import is_program, load_program
from mia_lightning.targets.features import probe

_AUTO = "give --target.architecture: a torchvision name or package.module:Class"


MOST_CLASSES = 100_000
"""What weights may claim without being asked."""


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A network with room for these weights, which are not in it yet."""

    network: nn.Module
    weights: dict[str, Tensor]
    changes: list[str]


def load(checkpoint: str | None, architecture: str, num_classes: int | None, feature_layer: str | None) -> Target:
    """Return the target; see `mia_lightning.targets.load_target`."""
    if checkpoint is None:
        return _trained(architecture, num_classes, feature_layer)
    path = Path(checkpoint)
    if is_program(path):
        return _check_program(load_program(path), num_classes, feature_layer)
    tensors, lightning = weights.read_weights(path)
    found = prefixes.variants(tensors, lightning)
    name = _detect(found, path.name) if architecture == "auto" else architecture
    fitted = _fit(name, found, num_classes, path.name)
    weights.check_finite(fitted.weights, path.name)
    _fill(fitted, name, path.name)
    resolved = f"{name} ({', '.join(fitted.changes)})" if fitted.changes else name
    return _finish(fitted.network, resolved, num_classes, feature_layer, path.name)


def _trained(architecture: str, num_classes: int | None, feature_layer: str | None) -> Target:
    """Return the target that a class or function of the user's returns trained."""
    if ":" not in architecture:
        raise MIAError("--target.checkpoint is not given; name the file, or a package.module:function as architecture")
    network = architectures.build(architecture, num_classes, {})
    weights.check_finite(network.state_dict(), architecture)
    return _finish(network, architecture, num_classes, feature_layer, architecture)


def _finish(
    network: nn.Module, architecture: str, num_classes: int | None, feature_layer: str | None, source: str
) -> Target:
    network = network.float().eval().requires_grad_(False)
    rows = num_classes or _last_rows(network.state_dict())
    target = Target(network, rows, feature_layer, architecture, _digest(network, architecture))
    return _with_probe(target, num_classes, source)


def _detect(found: Sequence[dict[str, Tensor]], source: str) -> str:
    name = next((name for tensors in found if (name := architectures.detect(tensors))), None)
    if name is None:
        first = ", ".join(list(found[-1])[:3])
        raise MIAError(f"{source}: no torchvision ResNet, so its network is unknown (it begins {first}); {_AUTO}")
    return name


def _fit(name: str, found: Sequence[dict[str, Tensor]], num_classes: int | None, source: str) -> _Fitted:
    """Build the network for the stem and the classes the weights show.

    The last matrix of the file is a good guess of the head but no proof: where the guess leaves heads of another
    size, their number of rows is the answer.
    """
    guess = num_classes or _last_rows(found[-1])
    if num_classes is None and guess > MOST_CLASSES:  # before a network of that size is built
        raise MIAError(f"{source}: its last matrix has {guess:,} rows, too many for classes; give --target.num_classes")
    fitted = _fit_once(name, found, guess)
    rows = _other_rows(fitted, guess)
    if rows is None or rows > MOST_CLASSES:
        return fitted
    if num_classes is not None:
        raise MIAError(f"{source}: its classifier has {rows} classes, but --target.num_classes is {num_classes}")
    return _fit_once(name, found, rows)


def _fit_once(name: str, found: Sequence[dict[str, Tensor]], num_classes: int) -> _Fitted:
    network = architectures.build(name, num_classes, found[-1])
    chosen = prefixes.closest(found, network.state_dict())
    return _Fitted(network, chosen, [] if ":" in name else architectures.fit_stem(network, chosen))


def _last_rows(tensors: Mapping[str, Tensor]) -> int:
    return next((int(tensor.shape[0]) for tensor in reversed(list(tensors.values())) if tensor.ndim >= 2), 1)


def _other_rows(fitted: _Fitted, guess: int) -> int | None:
    """Return the rows of the head in the file where they are not the guess and the rest of its shape agrees."""
    heads = [
        (found.shape[0], tensor.shape[0])
        for name, tensor in fitted.network.state_dict().items()
        if (found := fitted.weights.get(name)) is not None
        and tensor.ndim >= 2
        and found.shape != tensor.shape
        and found.shape[1:] == tensor.shape[1:]
    ]
    return int(heads[-1][0]) if heads and all(built == guess for _, built in heads) else None


def _fill(fitted: _Fitted, name: str, source: str) -> None:
    """Load the weights, or raise one sentence that names the first differences.

    Batch counters are optional: they are unused in eval mode, and old checkpoints do not have them.
    """
    expected = fitted.network.state_dict()
    missing = [key for key in expected if key not in fitted.weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in fitted.weights if key not in expected]
    shapes = [
        f"{key} (expected {tuple(tensor.shape)}, found {tuple(fitted.weights[key].shape)})"
        for key, tensor in expected.items()
        if key in fitted.weights and fitted.weights[key].shape != tensor.shape
    ]
    parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    if any(keys for _, keys in parts):
        differences = "; ".join(f"{kind}: {_first_three(keys)}" for kind, keys in parts if keys)
        likely = architectures.detect(fitted.weights)
        advice = (
            f"the weights look like {likely}, try --target.architecture {likely}"
            if likely not in (None, name)
            else ("check --target.architecture")
        )
        raise MIAError(f"{source}: the weights do not fit {name} ({differences}); {advice}")
    fitted.network.load_state_dict(fitted.weights, strict=False)


def _first_three(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + rest


def _digest(network: nn.Module, architecture: str) -> str:
    digest = sha256(f"{architecture}\n{architectures.source_of(architecture)}\n".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _with_probe(target: Target, num_classes: int | None, source: str) -> Target:
    """Run the network once on noise of the smallest side it takes, to see its classes and where its features are."""
    layer = _check_layer(target.network, target.feature_layer) if target.feature_layer else None
    for side in (32, 28, 64, 96, 224):
        sample = torch.randn(
            2, image_channels(target.network) or 3, side, side, generator=torch.Generator().manual_seed(0)
        )
        try:
            logits, found = probe(target.network, sample)
        except Exception:
            continue
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            break
        if num_classes not in (None, logits.shape[1]):
            raise MIAError(f"{source}: answers {logits.shape[1]} classes, but --target.num_classes is {num_classes}")
        return replace(target, num_classes=int(logits.shape[1]), feature_layer=layer or found)
    return target


def _check_layer(network: nn.Module, layer: str) -> str:
    known = [name for name, _ in network.named_modules() if name]
    if layer not in known:
        close = get_close_matches(layer, known, n=3, cutoff=0.0)
        raise MIAError(f"--target.feature_layer {layer!r} does not exist; the closest names are {', '.join(close)}")
    return layer


def _check_program(target: Target, num_classes: int | None, feature_layer: str | None) -> Target:
    if feature_layer is not None:
        raise MIAError("an exported program has no layers to name; leave --target.feature_layer out, it is found")
    weights.check_finite(target.network.state_dict(), target.architecture)
    if num_classes not in (None, target.num_classes):
        raise MIAError(f"the program answers {target.num_classes} classes, but --target.num_classes is {num_classes}")
    return target
