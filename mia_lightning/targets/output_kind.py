"""Kinds of network outputs: recognition from values, and conversion into float32 logits."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mia_lightning.errors import MIAError
from mia_lightning.targets.base import OutputKind

FLOOR = float(torch.finfo(torch.float32).tiny)
"""Smallest probability (1.2e-38): smaller ones are raised to it before the logarithm."""

NAMES = (
    *("logits", "logit", "out", "output", "outputs", "y_hat", "pred", "preds", "predictions", "scores"),
    *("probs", "probabilities", "log_probs"),
)
"""Keys and attributes of a structured output that hold the class scores, in this order."""

BASES: dict[OutputKind, float] = {"log_probabilities": math.e, "log2_probabilities": 2.0, "log10_probabilities": 10.0}
"""Base of the logarithm of log-probabilities."""

SENTENCES: dict[OutputKind, str] = {
    "logits": "",
    "log_probabilities": "the target returns log-probabilities (their exponentials sum to 1), used as logits",
    "log2_probabilities": "the target returns log-probabilities of base 2 (rows of 2^x sum to 1), multiplied by log 2",
    "log10_probabilities": "the target returns log-probabilities of base 10 (rows of 10^x sum to 1), multiplied by "
    "log 10",
    "probabilities": "the target returns probabilities (non-negative rows with a common sum); their logarithms are "
    f"used as logits, with probabilities below {FLOOR:.1e} raised to it",
    "sigmoids": "the target returns an independent probability per class (within [0, 1], with rows that do not sum to "
    "1); log(p / (1 - p)) is used as logit",
    "one_logit": "the target returns one logit per image, used as that of class 1 against 0 for class 0",
    "one_probability": "the target returns one probability per image, used as that of class 1; its logit is taken",
}


def select_tensor(outputs: Any) -> tuple[Tensor, str | int | None]:
    """Return the tensor of class scores in a network's output, and the item that holds it (None: itself).

    An item ".name" is an attribute, "name" a key and a number a position.

    Raises:
        MIAError: there is no such tensor.
    """
    if isinstance(outputs, Tensor):
        return outputs, None
    if isinstance(outputs, Mapping):
        names = [name for name in NAMES if isinstance(outputs.get(name), Tensor)]
        tensors = [name for name, value in outputs.items() if isinstance(value, Tensor)]
        if names or len(tensors) == 1:
            name = (names or tensors)[0]
            return outputs[name], name
    elif name := next((name for name in NAMES if isinstance(getattr(outputs, name, None), Tensor)), None):
        return getattr(outputs, name), f".{name}"
    elif isinstance(outputs, (tuple, list)) and outputs and isinstance(outputs[0], Tensor):
        return outputs[0], 0
    raise MIAError(
        f"the target returns a {type(outputs).__name__} without a tensor of logits; wrap its forward in a class that "
        "returns one, and name it with --target.architecture package.module:Class"
    )


def item_of(outputs: Any, item: str | int | None) -> Tensor:
    """Return the tensor that `select_tensor` found, without looking at values (traceable)."""
    if item is None:
        value = outputs
    elif isinstance(item, str) and item.startswith("."):
        value = getattr(outputs, item[1:])
    else:
        value = outputs[item]
    tensor: Tensor = value
    return tensor


def recognize(outputs: Tensor) -> OutputKind:
    """Return the kind of outputs (N, K) or (N,), read from the values of several images.

    Args:
        outputs: Floating; the more varied the images, the safer.
    """
    values = outputs.detach().double().flatten(1) if outputs.ndim > 1 else outputs.detach().double()[:, None]
    values = values[values.isfinite().all(dim=1)]
    if len(values) == 0:
        return "one_logit" if values.shape[1] == 1 else "logits"
    in_unit = bool(((values >= -1e-6) & (values <= 1 + 1e-6)).all())
    if values.shape[1] == 1:
        return "one_probability" if in_unit else "one_logit"
    sums = values.sum(dim=1)
    if bool((values >= -1e-6).all()) and _is_constant(sums) and _is_unit(float(sums[0])):
        return "probabilities"
    for kind, base in BASES.items() if bool((values <= 1e-6).all()) else ():
        if bool((((values * math.log(base)).exp().sum(dim=1) - 1).abs() < 1e-3).all()):
            return kind
    spread = bool((values > 0).all()) and float(values.max()) > 0.9 and float(values.median()) < 0.5
    return "sigmoids" if in_unit and spread else "logits"  # a ReLU after the head stays in the unit interval too


def is_one_hot(outputs: Tensor) -> Tensor:
    """Return (N,) True for rows (N, K) with a single nonzero entry: labels without any confidence."""
    return (outputs != 0).sum(dim=1) == 1


def to_logits(outputs: Tensor, output: OutputKind) -> Tensor:
    """Return float32 logits (N, classes) for outputs (N, K) or (N,) of a kind; traceable and differentiable."""
    values = outputs.float()
    if output == "logits":
        return values
    if output in ("one_logit", "one_probability"):
        single = values.reshape(-1, 1)
        logit = single if output == "one_logit" else _logit(single)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)
    if output == "probabilities":
        return (values / values.sum(dim=1, keepdim=True)).clamp(min=FLOOR).log()
    return _logit(values) if output == "sigmoids" else values * math.log(BASES.get(output, math.e))


def _logit(p: Tensor) -> Tensor:
    return p.clamp(min=FLOOR).log() - torch.log1p(-p.clamp(max=1 - 2**-24))


def _is_constant(sums: Tensor) -> bool:
    return bool(((sums - sums[0]).abs() <= 1e-3 * sums[0].abs()).all())


def _is_unit(total: float) -> bool:
    """Whether rows sum to 1, or to 100 as percentages."""
    return abs(total - 1) < 2e-3 or abs(total - 100) < 0.2
