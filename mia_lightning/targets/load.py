"""Loading: from a checkpoint file to a target."""

import inspect
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.targets import architectures, libraries, weights
from mia_lightning.targets.base import LoadOptions, Target, TargetForm
from mia_lightning.targets.callables import of_labels
from mia_lightning.targets.checks import image_channels
from mia_lightning.targets.estimators import EstimatorNetwork, is_lightgbm, is_skops, load_skops
from mia_lightning.targets.exported import is_program
from mia_lightning.targets.first_query import load_program
from mia_lightning.targets.fitting import detect, fit, last_rows, torchvision_names
from mia_lightning.targets.imported import first_line, import_callable, source_of
from mia_lightning.targets.inputs import input_dtype, probes, refuse_text
from mia_lightning.targets.probing import probed
from mia_lightning.targets.wrapper import TargetNetwork


def load(checkpoint: str | None, options: LoadOptions) -> Target:
    """Return the target; see `mia_lightning.targets.load_target`."""
    if checkpoint is None:
        return _trained(options)
    path = Path(checkpoint)
    if libraries.is_folder(path):
        return _of_folder(path, options)
    if is_skops(path):
        return _finish(
            EstimatorNetwork(load_skops(path)), _no_architecture(options, "a .skops file", "skops"), options, path.name
        )
    if is_lightgbm(path):
        from mia_lightning.targets import lightgbm_text  # imports scikit-learn

        name = _no_architecture(options, "a LightGBM model", "lightgbm")
        return _finish(EstimatorNetwork(lightgbm_text.load_model(path)), name, options, path.name)
    weights.check_kind(path)
    if is_program(path):
        return _of_program(path, options)
    file = weights.read_weights(path)
    is_resnet = options.architecture == "auto" or options.architecture.startswith(("resnet", "wide_resnet", "resnext"))
    file, notes = torchvision_names(file, path.name) if is_resnet else (file, [])
    name = detect(file.tensors, path.name) if options.architecture == "auto" else options.architecture
    fitted = fit(name, file, options, path.name)
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
        notes=(*notes, *fitted.notes, *target.notes),
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
    target = _finish(network, name, options, name)
    is_class = inspect.isclass(import_callable(name, "--target.architecture"))
    if is_class or isinstance(network, EstimatorNetwork):  # built or cloned from a seed
        return target
    return replace(target, untrained=partial(architectures.refuse_trained, name))


def _of_folder(folder: Path, options: LoadOptions) -> Target:
    """Return the target in a Hugging Face folder."""
    network, name, config = libraries.load_folder(folder)
    if options.architecture != "auto":
        raise MIAError(f"--target.architecture {options.architecture}: {folder.name} names its own; leave it out")
    weights.check_finite(network.state_dict(), folder.name)
    return replace(_finish(network, name, options, folder.name), hyper_parameters=config)


def _no_architecture(options: LoadOptions, what: str, name: str) -> str:
    if options.architecture != "auto":
        raise MIAError(f"--target.architecture {options.architecture}: {what} contains its own; leave it out")
    return name


def _finish(network: nn.Module, architecture: str, options: LoadOptions, source: str) -> Target:
    network = network.float().eval().requires_grad_(False)
    rows = options.num_classes or last_rows(network.state_dict())
    if not isinstance(network, EstimatorNetwork):
        refuse_text(options.features, architecture)
    digest = weights.weights_digest(network, f"{architecture}\n{source_of(architecture)}")
    if isinstance(network, EstimatorNetwork):
        network.features = options.features
        digest = network.digest()
        architecture = f"{architecture} ({type(network.estimator).__name__})"
        kind = "sigmoids" if options.multi_label else "probabilities"
        options = replace(options, output=kind if options.output == "auto" else options.output)
    if options.output == "labels" and not options.multi_label:
        network = of_labels(network, architecture, options.num_classes)
        options = replace(options, output="auto", num_classes=None)
    target = Target(network, rows, options.feature_layer, architecture, digest, input_dtype=input_dtype(network))
    return _with_probe(target, options, source)


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
    channels = image_channels(network) or 3
    for samples in probes(network, options.image_shape, channels, options.sample):
        try:
            network(TargetNetwork(network, options.form).inputs(samples[0]))
        except MIAError:
            raise
        except Exception:
            continue
        result = probed(
            network,
            options.form,
            samples,
            output=options.output,
            multi_label=options.multi_label,
            feature_layer=target.feature_layer,
        )
        classes = int(result.logits.shape[1])
        if options.num_classes not in (None, classes):
            raise MIAError(f"{source}: returns {classes} classes, but --target.num_classes is {options.num_classes}")
        return replace(
            target,
            network=result.network,
            num_classes=classes,
            feature_layer=result.feature_layer,
            form=result.form,
            digest=_with_form(target.digest, result.form),
            notes=result.notes,
        )
    return target  # `check_fits` states the reason


def _of_program(path: Path, options: LoadOptions) -> Target:
    if options.feature_layer is not None:
        raise MIAError("an exported program has no named layers; remove --target.feature_layer, it is found")
    if options.form.stem != "auto":
        raise MIAError(f"--target.stem {options.form.stem} applies to torchvision ResNets, not to an exported program")
    refuse_text(options.features, path.name)
    target = load_program(path, options.form, options.image_shape, options.sample)
    weights.check_finite(target.network.state_dict(), target.architecture)
    return _with_probe(target, options, target.architecture)
