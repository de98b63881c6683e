"""Untrained copies of a network in memory, for reference models."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.targets.base import TargetForm
from mia_lightning.targets.imported import first_line
from mia_lightning.targets.wrapper import wrap

REMEDY = "pass untrained=, a function that returns the network with its first weights"


@dataclass(frozen=True, eq=False)
class FreshNetwork:
    """A network's architecture with weights drawn from a seed.

    Parameters that do not require gradients while others do (a frozen backbone) keep their values.

    Args:
        network: The trained network.
        form: Its preprocessing and kind of output.
        untrained: Returns the untrained network; None resets a copy of the trained one by its layers'
            `reset_parameters`.
    """

    network: nn.Module
    form: TargetForm
    untrained: Callable[[], nn.Module] | None = None

    def __call__(self, seed: int) -> nn.Module:
        """Return the untrained network in float32; the global random state is restored.

        Raises:
            MIAError: a layer has parameters that cannot be reset, or `untrained` returns no network, or a trained one.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _reset(copy.deepcopy(self.network)) if self.untrained is None else self._built(self.untrained)
        return wrap(network.cpu().float().train(), self.form)

    def _built(self, untrained: Callable[[], nn.Module]) -> nn.Module:
        try:
            network = untrained()
        except Exception as error:
            raise MIAError(f"untrained=: calling it failed: {first_line(error)}") from error
        if not isinstance(network, nn.Module):
            raise MIAError(f"untrained= returned {type(network).__name__}; return an nn.Module")
        trained = self.network.state_dict()
        weights = {name: tensor for name, tensor in network.state_dict().items() if tensor.ndim > 1}
        if weights and all(name in trained and torch.equal(tensor, trained[name]) for name, tensor in weights.items()):
            raise MIAError("untrained= returned the network as it was trained; return it with its first weights")
        return network


def _reset(network: nn.Module) -> nn.Module:
    """Draw the parameters again, layer by layer in the order of registration."""
    parameters = list(network.parameters())
    if not parameters:
        raise MIAError(f"the {type(network).__name__} has no parameters to train")
    frozen = {id(parameter) for parameter in parameters if not parameter.requires_grad}
    if len(frozen) == len(parameters):  # frozen for inference as a whole
        frozen = set()
        network.requires_grad_(True)
    for name, module in network.named_modules():
        direct = list(module.parameters(recurse=False))
        if direct and all(id(parameter) in frozen for parameter in direct):
            continue
        if isinstance(module, nn.MultiheadAttention):
            _reset_attention(module)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()
        elif direct:
            raise MIAError(f"{name or 'the network'} ({type(module).__name__}) has no reset_parameters; {REMEDY}")
    return network


def _reset_attention(module: nn.MultiheadAttention) -> None:
    """Draw the input projections as PyTorch does; the output projection is a layer of its own."""
    for parameter in module.parameters(recurse=False):
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)
