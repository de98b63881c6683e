"""Networks and estimators of references, before they are trained."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.references.config import ReferencesConfig
from mia_lightning.references.user_training import architecture_of, is_module, resolved_training, trainer_code
from mia_lightning.targets.architectures import untrained
from mia_lightning.targets.base import Target, TargetForm
from mia_lightning.targets.estimators import EstimatorNetwork
from mia_lightning.targets.wrapper import unwrap, wrap

NETWORK_PARAMETERS = ("network", "net", "model")
"""Parameters without a default by which a LightningModule takes the network that it trains."""


@dataclass(frozen=True, eq=False)
class NetworkFactory:
    """Untrained networks of references, by seed. Picklable."""

    architecture: str
    num_classes: int
    like: Mapping[str, torch.Tensor]
    """Weights of the target."""
    form: TargetForm
    arguments: Mapping[str, object]
    taken: str | None = None
    """Parameter of a LightningModule by which it takes its network."""
    inner: str = ""
    """Architecture of that network."""

    def __call__(self, seed: int) -> nn.Module:
        """Return a network with the starting weights of a seed.

        Raises:
            MIAError: it cannot be built, or is the trained target.
        """
        build = partial(untrained, num_classes=self.num_classes, like=self.like, seed=seed)
        arguments = dict(self.arguments)
        if self.taken is not None:
            arguments[self.taken] = build(self.inner, form=TargetForm(stem=self.form.stem))
        return build(self.architecture, form=self.form, hyper_parameters=arguments)


@dataclass(frozen=True, eq=False)
class TargetWeights:
    """Networks of references that start from the target's weights. Picklable."""

    build: Callable[[int], nn.Module]
    weights: Mapping[str, torch.Tensor]

    def __call__(self, seed: int) -> nn.Module:
        """Return a network with the target's weights, whatever the seed."""
        network = self.build(seed)
        unwrap(network).load_state_dict(self.weights)
        return network


def network_of(config: ReferencesConfig, target: Target) -> Callable[[int], nn.Module]:
    """Return what makes a network with its first weights, or an estimator that is not fitted, from a seed.

    Raises:
        MIAError: see `trainer_code`, or weights of the target for another network.
    """
    if config.training.start == "random":
        return _untrained_network(config, target)
    network = unwrap(target.network)
    if config.architecture or isinstance(network, EstimatorNetwork):
        raise MIAError(
            "--references.training.start target fine-tunes copies of a target that is a network; leave "
            "--references.architecture out, or train from random weights (--references.training.start random)"
        )
    return TargetWeights(_untrained_network(config, target), dict(network.state_dict()))


def _untrained_network(config: ReferencesConfig, target: Target) -> Callable[[int], nn.Module]:
    network = unwrap(target.network)
    if isinstance(network, EstimatorNetwork):
        if config.architecture:
            raise MIAError("an estimator's references are clones of it; leave --references.architecture out")
        return partial(_clone, network.untrained(0), form=target.form)
    training = resolved_training(config, target)
    code = trainer_code(training)
    architecture, form = config.architecture or target.architecture, target.form
    by_module = code is not None and is_module(code)
    name = str(training.class_path) if by_module else architecture
    is_target = name.partition(" (")[0] == architecture_of(ReferencesConfig(), target)
    of_target = not by_module or (is_target and not training.init_args)
    if target.untrained is not None and config.architecture is None and of_target:
        return target.untrained
    if config.architecture or not is_target:  # another network: it shares the preprocessing, and returns logits
        form = TargetForm(resize=form.resize, transform=form.transform, stem=form.stem if by_module else "auto")
    arguments = dict(target.hyper_parameters)
    taken = None
    if by_module and code is not None:
        arguments = (arguments if is_target else {}) | training.init_args
        required = [p.name for p in inspect.signature(code).parameters.values() if p.default is p.empty]
        taken = next((key for key in NETWORK_PARAMETERS if key in required and key not in arguments), None)
    like = dict(network.state_dict())
    return NetworkFactory(name, target.num_classes, like, form, arguments, taken, architecture)


def _clone(network: EstimatorNetwork, seed: int, *, form: TargetForm) -> nn.Module:
    return wrap(network.untrained(seed), form)
