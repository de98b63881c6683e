"""Targets from objects in memory: networks, estimators with predict_proba, and functions of a batch."""

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError
from mia_lightning.records.features import Features
from mia_lightning.targets.base import Target, TargetForm
from mia_lightning.targets.callables import FunctionNetwork, as_array, as_tensor, of_labels
from mia_lightning.targets.estimators import EstimatorNetwork, is_estimator, refuse_regressor
from mia_lightning.targets.features import ends_with_head
from mia_lightning.targets.fresh import REMEDY, FreshNetwork
from mia_lightning.targets.imported import first_line
from mia_lightning.targets.inputs import refuse_text
from mia_lightning.targets.probing import probed
from mia_lightning.targets.weights import check_finite, weights_digest
from mia_lightning.targets.wrapper import prefix_of

TRAINING = "the model was in training mode; a copy of it in eval mode was queried, as in deployment"


def target_from(
    model: object,
    samples: Sequence[Tensor],
    *,
    output: str = "auto",
    convert: Callable[[Tensor], Any] = as_array,
    classes: Sequence[object] | None = None,
    form: TargetForm | None = None,
    features: Features | None = None,
    feature_layer: str | None = None,
    untrained: Callable[[], nn.Module] | None = None,
    multi_label: bool = False,
) -> Target:
    """Return the target of a model in memory, which itself stays as it is.

    Args:
        model: A network (a LightningModule included), an object with `predict_proba`, or a function from a batch to
            logits, probabilities or labels.
        samples: Batches of varied inputs (B, ...), as the network receives them; the kind of output is read from them.
        output: "auto", or a kind of output (`OutputKind`) that the values do not contradict.
        convert: For estimators and functions, their argument from a batch (B, ...).
        classes: For functions that return labels, the label of each class in order.
        features: Columns of the records, for estimators that were fitted on a table.
        form: Preprocessing before the network.
        feature_layer: Submodule whose input is the penultimate feature vector; None looks for it.
        untrained: Returns the network with its first weights, for reference models; None resets a copy of it.
        multi_label: Whether each output is that of an independent label.

    Raises:
        MIAError: an object that is neither, outputs without class scores or that contradict `output`, or a failing
            query.
    """
    network, name = _network(model, convert, classes, features)
    if output == "labels" and not multi_label:
        network, output = of_labels(network, name, classes), "auto"
    notes = [TRAINING] if isinstance(model, nn.Module) and model.training else []
    try:
        result = probed(
            network, form or TargetForm(), samples, output=output, multi_label=multi_label, feature_layer=feature_layer
        )
    except MIAError:
        raise
    except Exception as error:
        shape = tuple(samples[0].shape)
        raise MIAError(
            f"calling {name} on a {str(samples[0].dtype).removeprefix('torch.')} batch of shape {shape} failed: "
            f"{first_line(error)}; pass a function of one batch where the model needs other inputs"
        ) from error
    if not torch.isfinite(result.logits).all():
        raise MIAError(f"{name} returns NaN or infinite logits for the given records; check its weights and inputs")
    layer = result.feature_layer
    return Target(
        network=result.network,
        num_classes=int(result.logits.shape[1]),
        feature_layer=layer,
        architecture=name,
        digest=weights_digest(network, f"{name} {id(network)}"),  # of a function, name and address alone
        form=result.form,
        notes=(*notes, *result.notes),
        untrained=None if isinstance(network, EstimatorNetwork) else _untrained(model, result.form, untrained),
        trains_head_alone=untrained is None
        and _trains_alone(model, layer, prefix_of(result.network))
        and ends_with_head(result.network, layer, result.form.class_order, samples[0], multi_label=multi_label),
    )


def _trains_alone(model: object, layer: str | None, prefix: str) -> bool:
    """Whether a linear layer has all the parameters that require gradients, among others that do not."""
    if not isinstance(model, nn.Module):
        return False
    model = _plain(model)
    head = dict(model.named_modules()).get((layer or "").removeprefix(prefix))
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    is_linear = isinstance(head, nn.Linear) and trained == {id(parameter) for parameter in head.parameters()}
    return is_linear and len(trained) < len(list(model.parameters()))


def _untrained(
    model: object, form: TargetForm, untrained: Callable[[], nn.Module] | None
) -> Callable[[int], nn.Module]:
    if isinstance(model, nn.Module):
        return FreshNetwork(_plain(model), form, untrained)
    if untrained is not None:
        return FreshNetwork(nn.Module(), TargetForm(), untrained)
    return partial(_refuse, type(model).__name__)


def _refuse(name: str, seed: int) -> nn.Module:
    raise MIAError(f"a {name} has no network that could be trained again; {REMEDY}")


def _network(
    model: object,
    convert: Callable[[Tensor], Any],
    classes: Sequence[object] | None,
    features: Features | None,
) -> tuple[nn.Module, str]:
    """Return a copy of the model as a network in eval mode on the CPU, and its name."""
    if inspect.isclass(model):
        raise MIAError(f"the model is the class {model.__name__}; pass an instance of it, trained")
    if isinstance(model, torch.jit.ScriptModule):
        raise MIAError(
            "the model is a TorchScript program; pass the network that it was made from, or export that by "
            "torch.export.export(network, (batch,)) and pass the program"
        )
    if isinstance(model, torch.export.ExportedProgram):
        refuse_text(features, "the program")
        program = model.module()
        return FunctionNetwork(lambda batch: program(batch), "the program", convert=as_tensor), "torch.export"
    if isinstance(model, nn.Module):
        refuse_text(features, f"the {type(model).__name__}")
        return _copied(model)
    if callable(function := getattr(model, "predict_proba", None)):
        if is_estimator(model):
            network = EstimatorNetwork(model)
            network.features = features
            return network, type(model).__name__
        return FunctionNetwork(function, f"{type(model).__name__}.predict_proba", convert=convert), type(model).__name__
    if hasattr(model, "predict") and hasattr(model, "fit"):
        refuse_regressor(model)
        raise MIAError(
            f"the {type(model).__name__} has no predict_proba; pass a function that returns probabilities, or its "
            "predict for an audit by labels alone"
        )
    if callable(model):
        name = getattr(model, "__qualname__", type(model).__name__).rpartition("<locals>.")[2]
        return FunctionNetwork(model, name, convert=convert, classes=classes), name
    raise MIAError(
        f"the model is a {type(model).__name__}; pass an nn.Module, an object with predict_proba, or a function from a "
        "batch to logits, probabilities or labels, such as its method predict"
    )


def _plain(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers of parallel training and torch.compile."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    plain: nn.Module = getattr(model, "_orig_mod", model)
    return plain


def _copied(model: nn.Module) -> tuple[nn.Module, str]:
    model = _plain(model)
    name = type(model).__name__
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise MIAError(f"the {name} has no weights (device meta); load them first")
    check_finite(model.state_dict(), name)
    try:
        network = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    except Exception as error:
        raise MIAError(
            f"the {name} cannot be copied ({first_line(error)}); pass a function such as lambda batch: model(batch)"
        ) from error
    return network, name
