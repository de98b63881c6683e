"""Loading: from a checkpoint file to a target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mia_lightning.errors import MIAError
from mia_lightning.targets import architectures, libraries, weight_sets, weights
from mia_lightning.targets.base import Target, TargetForm
from mia_lightning.targets.callables import LABELS, is_labels, of_labels
from mia_lightning.targets.checks import image_channels
from mia_lightning.targets.estimators import EstimatorNetwork, is_skops, load_skops
from mia_lightning.targets.exported import is_program
from mia_lightning.targets.features import check_layer, probe
from mia_lightning.targets.first_query import load_program
from mia_lightning.targets.imported import first_line, source_of
from mia_lightning.targets.inputs import input_dtype, probes
from mia_lightning.targets.output_kind import SENTENCES
from mia_lightning.targets.wrapper import TargetNetwork, check_class_order, prefix_of, recognized, wrap

_AUTO = "give --target.architecture: a torchvision name or package.module:Class"


MOST_CLASSES = 100_000
"""Largest number of classes that is read from the weights without `--target.num_classes`."""


@dataclass(frozen=True)
class LoadOptions:
    """Options of `load_target`."""

    architecture: str = "auto"
    num_classes: int | None = None
    feature_layer: str | None = None
    weights: str | None = None
    output: str = "auto"
    form: TargetForm = field(default_factory=TargetForm)
    image_shape: tuple[int, ...] | None = None
    sample: NDArray[Any] | None = None
    """(N, ...) inputs of records that are not images, to probe the network with."""

    feature_names: tuple[str, ...] | None = None
    """Columns of the records, for estimators that were fitted on a DataFrame."""

    multi_label: bool = False


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A network with room for these weights, which are not in it yet."""

    network: nn.Module
    weights: dict[str, Tensor]
    changes: list[str]
    notes: list[str]
    other_weights: tuple[str, ...] = ()


def load(checkpoint: str | None, options: LoadOptions) -> Target:
    """Return the target; see `mia_lightning.targets.load_target`."""
    if checkpoint is None:
        return _trained(options)
    path = Path(checkpoint)
    if libraries.is_folder(path):
        return _of_folder(path, options)
    if is_skops(path):
        return _finish(EstimatorNetwork(load_skops(path)), _skops_name(options), options, path.name)
    weights.check_kind(path)
    if is_program(path):
        return _of_program(path, options)
    file = weights.read_weights(path)
    name = _detect(file.tensors, path.name) if options.architecture == "auto" else options.architecture
    fitted = _fit(name, file, options, path.name)
    weights.check_parameters(fitted.weights, fitted.network, path.name)
    weights.check_finite(fitted.weights, path.name)
    try:
        fitted.network.load_state_dict(fitted.weights, strict=False)
    except RuntimeError as error:
        raise MIAError(f"{path.name}: the weights do not fit {name} ({first_line(error)})") from error
    resolved = f"{name} ({', '.join(fitted.changes)})" if fitted.changes else name
    target = _finish(fitted.network, resolved, options, path.name)
    return replace(
        target,
        notes=(*fitted.notes, *target.notes),
        other_weights=fitted.other_weights,
        hyper_parameters=file.hyper_parameters,
        epochs=file.epochs,
    )


def _trained(options: LoadOptions) -> Target:
    """Return the target that a class or function of the user's returns trained."""
    name = options.architecture
    if ":" not in name or libraries.is_library(name):
        raise MIAError("--target.checkpoint is not given; name the file, or a package.module:function as architecture")
    network = architectures.build(name, options.num_classes, {})
    weights.check_finite(network.state_dict(), name)
    return _finish(network, name, options, name)


def _of_folder(folder: Path, options: LoadOptions) -> Target:
    """Return the target in a Hugging Face folder."""
    network, name, config = libraries.load_folder(folder)
    if options.architecture != "auto":
        raise MIAError(f"--target.architecture {options.architecture}: {folder.name} names its own; leave it out")
    weights.check_finite(network.state_dict(), folder.name)
    return replace(_finish(network, name, options, folder.name), hyper_parameters=config)


def _skops_name(options: LoadOptions) -> str:
    if options.architecture != "auto":
        raise MIAError(f"--target.architecture {options.architecture}: a .skops file contains its own; leave it out")
    return "skops"


def _finish(network: nn.Module, architecture: str, options: LoadOptions, source: str) -> Target:
    network = network.float().eval().requires_grad_(False)
    rows, digest = options.num_classes or _last_rows(network.state_dict()), _digest(network, architecture)
    if isinstance(network, EstimatorNetwork):
        network.feature_names, digest = options.feature_names, network.digest()
        architecture = f"{architecture} ({type(network.estimator).__name__})"
        kind = "sigmoids" if options.multi_label else "probabilities"
        options = replace(options, output=kind if options.output == "auto" else options.output)
    if options.output == "labels" and not options.multi_label:
        network = of_labels(network, architecture, options.num_classes)
        options = replace(options, output="auto", num_classes=None)
    target = Target(network, rows, options.feature_layer, architecture, digest, input_dtype=input_dtype(network))
    return _with_probe(target, options, source)


def _detect(tensors: Mapping[str, Tensor], source: str) -> str:
    candidates = weight_sets.anchored(tensors, "layer1.0.conv2.weight")
    name = next((name for item in candidates if (name := architectures.detect(item))), None)
    if name is None:
        first = ", ".join(list(tensors)[:3])
        raise MIAError(f"{source}: no torchvision ResNet, so its network is unknown (it begins {first}); {_AUTO}")
    return name


def _fit(name: str, file: weights.Checkpoint, options: LoadOptions, source: str) -> _Fitted:
    """Build the network for the stem and the classes that the weights have.

    The last matrix of the file is a guess of the head: where it leaves heads of another size, their number of rows is
    the number of classes.
    """
    guess = options.num_classes or _last_rows(file.tensors)
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


def _fit_once(name: str, file: weights.Checkpoint, options: LoadOptions, classes: int, source: str) -> _Fitted:
    network = architectures.build(name, classes, file.tensors, file.hyper_parameters)
    sets = weight_sets.weight_sets(file.tensors, network)
    if options.num_classes is not None and any(item.fits(network) for item in sets):
        sets = [item for item in sets if item.fits(network)]
    if not sets:
        _refuse(network, weight_sets.closest(file.tensors, network.state_dict()), name, source)
    taken, notes = weight_sets.choose(sets, options.weights, source)
    unexpected = [key for key in taken.left_out if not weight_sets.is_outside(key, network.state_dict())]
    if unexpected:
        _refuse(network, {**taken.tensors, **{key: torch.empty(0) for key in unexpected}}, name, source)
    is_own = ":" in name
    changes = [] if is_own else architectures.fit_stem(network, taken.tensors, options.form.stem)
    if is_own and options.form.stem != "auto":
        raise MIAError(f"--target.stem {options.form.stem} applies to torchvision ResNets, not to {name}")
    return _Fitted(network, taken.tensors, changes, notes, weight_sets.others(sets, taken))


def _last_rows(tensors: Mapping[str, Tensor]) -> int:
    return next((int(tensor.shape[0]) for tensor in reversed(list(tensors.values())) if tensor.ndim >= 2), 1)


def _other_rows(fitted: _Fitted, guess: int) -> int | None:
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


def _check_shapes(fitted: _Fitted, name: str, source: str) -> None:
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
    raise MIAError(f"{source}: the weights do not fit {name} ({differences}); {advice}")


def _first_three(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + rest


def _digest(network: nn.Module, architecture: str) -> str:
    digest = sha256(f"{architecture}\n{source_of(architecture)}\n".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _with_form(digest: str, form: TargetForm) -> str:
    form = replace(form, stem="auto")  # part of the architecture's name
    if form == TargetForm():
        return digest
    return sha256(f"{digest}\n{form}\n{source_of(form.transform)}".encode()).hexdigest()


def _with_probe(target: Target, options: LoadOptions, source: str) -> Target:
    """Run the network on noise, to find its classes, what it returns and where its features are.

    Without the shape of the images, the smallest side that it takes is used.
    """
    network = target.network
    layer = check_layer(network, target.feature_layer) if target.feature_layer else None
    channels = image_channels(network) or 3
    for samples in probes(network, options.image_shape, channels, options.sample):
        try:
            network(TargetNetwork(network, options.form).inputs(samples[0]))
        except MIAError:
            raise
        except Exception:
            continue
        form = recognized(network, options.form, samples, options.output, options.multi_label)
        check_class_order(network, form, samples[0])
        wrapped = wrap(network, form).eval()
        logits, probed = probe(wrapped, samples[0])
        assert isinstance(logits, Tensor)
        classes = int(logits.shape[1])
        if options.num_classes not in (None, classes):
            raise MIAError(f"{source}: returns {classes} classes, but --target.num_classes is {options.num_classes}")
        return replace(
            target,
            network=wrapped,
            num_classes=classes,
            feature_layer=prefix_of(wrapped) + layer if layer else probed,
            form=form,
            digest=_with_form(target.digest, form),
            notes=tuple(
                sentence for sentence in [LABELS if is_labels(network) else SENTENCES[form.output]] if sentence
            ),
        )
    return target  # `check_fits` states the reason


def _of_program(path: Path, options: LoadOptions) -> Target:
    if options.feature_layer is not None:
        raise MIAError("an exported program has no named layers; remove --target.feature_layer, it is found")
    if options.form.stem != "auto":
        raise MIAError(f"--target.stem {options.form.stem} applies to torchvision ResNets, not to an exported program")
    target = load_program(path, options.form, options.image_shape, options.sample)
    weights.check_finite(target.network.state_dict(), target.architecture)
    return _with_probe(target, options, target.architecture)
