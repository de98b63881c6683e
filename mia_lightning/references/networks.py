"""Networks and estimators of references, before they are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.references.config import ReferencesConfig
from mia_lightning.targets.architectures import untrained
from mia_lightning.targets.base import Target, TargetForm
from mia_lightning.targets.estimators import EstimatorNetwork
from mia_lightning.targets.wrapper import unwrap, wrap


def network_of(config: ReferencesConfig, target: Target) -> Callable[[int], nn.Module]:
    """Return what makes an untrained network, or an estimator that is not fitted, from a seed."""
    form, network = target.form, unwrap(target.network)
    if isinstance(network, EstimatorNetwork):
        if config.architecture:
            raise MIAError("an estimator's references are clones of it; leave --references.architecture out")
        return partial(_clone, network.untrained(0), form=form)
    if target.untrained is not None and config.architecture is None:
        return target.untrained
    if config.architecture:  # another network: it shares the preprocessing, and is expected to return logits
        form = TargetForm(resize=form.resize, transform=form.transform)
    return partial(
        _untrained,
        config.architecture or target.architecture,
        target.num_classes,
        dict(unwrap(target.network).state_dict()),
        form=form,
        hyper_parameters=target.hyper_parameters,
    )


def _clone(network: EstimatorNetwork, seed: int, *, form: TargetForm) -> nn.Module:
    return wrap(network.untrained(seed), form)


def _untrained(
    architecture: str,
    num_classes: int,
    like: Mapping[str, torch.Tensor],
    seed: int,
    *,
    form: TargetForm | None = None,
    hyper_parameters: Mapping[str, object] | None = None,
) -> nn.Module:
    return untrained(architecture, num_classes, like, seed=seed, form=form, hyper_parameters=hyper_parameters)
