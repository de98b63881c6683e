"""Outputs that change from query to query, and outputs without resolution."""

import torch
from torch import Tensor, nn

from mia_lightning.targets import output_kind
from mia_lightning.targets.callables import is_labels
from mia_lightning.targets.wrapper import TargetNetwork

TOLERANCE = 1e-3
"""Largest difference of logits, relative to the largest one, between batches of different records: rounding only."""


def nondeterminism(network: nn.Module, images: Tensor) -> str | None:
    """Return a sentence where the same image gives different logits, None where it does not.

    Args:
        network: In eval mode.
        images: (B, C, H, W) normalized, B at least 4, on its device.
    """
    with torch.inference_mode():
        first, second = network(images), network(images)
        half = network(images[: len(images) // 2])
    if (difference := _difference(first, second)) > TOLERANCE:
        return (
            f"the target is not deterministic: the logits of the same images differ by {difference:.0%} between two "
            "queries; look for dropout or noise that its forward leaves on in eval mode (functional.dropout needs "
            "training=self.training)"
        )
    if (difference := _difference(first[: len(half)], half)) > TOLERANCE:
        return (
            f"the target is not deterministic: the logits of an image differ by {difference:.0%} with the other images "
            "of its batch; look for batch normalization without running statistics or left in training mode"
        )
    return None


def saturation(network: nn.Module, images: Tensor) -> str | None:
    """Return a sentence where outputs have lost confidence: probabilities rounded to float16 or to 1 and 0, or outputs
    of the predicted class alone.

    Args:
        network: Of logits or, as a `TargetNetwork`, of probabilities; None is returned for others.
        images: (B, C, H, W) normalized, on its device.
    """
    output = network.form.output if isinstance(network, TargetNetwork) else "logits"
    if output == "logits":
        return _top_class_only(network, images)
    if not isinstance(network, TargetNetwork) or output != "probabilities":
        return None
    if is_labels(network.network):
        return None  # as `target_from` notes
    with torch.inference_mode():
        outputs = output_kind.item_of(network.network(network.inputs(images)), network.form.item)
    count = int(output_kind.is_one_hot(outputs).sum())
    if count == len(images):
        return (
            "the target returns one-hot labels without any confidence; only label-only signals (is_correct, "
            "label_agreement with --extraction.queries 18) can differ between records"
        )
    if _is_half(outputs):
        return (
            "the target's probabilities have the resolution of float16, which rounds those above 0.9998 to 1; float32 "
            "probabilities or logits would separate the most confident records"
        )
    if count:
        return (
            f"{count} of {len(images)} sampled records have one probability at 1 and all others at 0, which ties them "
            "in every signal; a forward that returns logits would distinguish them"
        )
    return None


def _top_class_only(network: nn.Module, images: Tensor) -> str | None:
    with torch.inference_mode():
        logits = network(images)
    if logits.shape[1] < 3 or not output_kind.is_one_hot(logits).all():
        return None
    return (
        "the target returns one value per image and 0 for every other class, so that only the predicted class has a "
        "confidence; a forward that returns all classes would separate the records better"
    )


def _is_half(values: Tensor) -> bool:
    """Whether all values are float16 numbers, and not merely decimals of few digits."""
    values = values.float().flatten()
    values = values[values.abs() > 1e-4]  # smaller ones are subnormal
    if len(values) < 20 or bool(((values * 1000).round() / 1000 - values).abs().max() < 1e-6):
        return False
    return bool((values.half().float() == values).all())


def _difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max() / first.abs().max().clamp(min=1e-6))
