"""Probe of a network: its classes, what it returns, and where its features are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mia_lightning.targets.base import TargetForm
from mia_lightning.targets.callables import LABELS, is_labels
from mia_lightning.targets.features import check_layer, probe
from mia_lightning.targets.output_kind import SENTENCES
from mia_lightning.targets.wrapper import TargetNetwork, check_class_order, prefix_of, recognized, wrap


@dataclass(frozen=True, eq=False)
class ProbedNetwork:
    """A network with what its outputs on samples show."""

    network: nn.Module
    """In eval mode, wrapped where its form requires it."""

    form: TargetForm
    logits: Tensor
    """(B, classes) of the first sample."""

    feature_layer: str | None
    notes: tuple[str, ...]
    """Sentence about outputs that are no logits."""


def probed(
    network: nn.Module,
    form: TargetForm,
    samples: Sequence[Tensor],
    *,
    output: str,
    multi_label: bool = False,
    feature_layer: str | None = None,
) -> ProbedNetwork:
    """Run a network on samples.

    Args:
        network: In eval mode.
        form: Its preprocessing.
        samples: Batches of varied inputs (B, ...).
        output: "auto", or the kind of output as configured.
        multi_label: Whether each output is that of an independent label.
        feature_layer: Name of its submodule whose input is the penultimate feature vector; None looks for it.

    Raises:
        MIAError: outputs without class scores or that contradict `output`, no such submodule, or an order of the
            classes that is not one.
    """
    layer = check_layer(network, feature_layer) if feature_layer else None
    form = recognized(network, form, list(samples), output, multi_label)
    check_class_order(network, form, samples[0])
    wrapped = wrap(network, form).eval()
    logits, last_layer = probe(wrapped, samples[0])
    assert isinstance(logits, Tensor)
    labels_alone = is_labels(network) or (multi_label and len(set(logits.flatten().tolist())) <= 2)
    note = LABELS if labels_alone else SENTENCES[form.output]
    named = prefix_of(wrapped) + layer if layer else last_layer
    notes = (note, _first_of(network, form, samples[0]) if form.item == 0 else "")
    return ProbedNetwork(wrapped, form, logits, named, tuple(filter(None, notes)))


def _first_of(network: nn.Module, form: TargetForm, sample: Tensor) -> str:
    """Return the note about a tuple of several tensors of values per record, "" for another output."""
    with torch.inference_mode():
        outputs = network(TargetNetwork(network, form).inputs(sample))
    shapes = [tuple(part.shape[1:]) for part in outputs if isinstance(part, Tensor) and part.ndim == 2]
    if len(shapes) < 2 or len(set(shapes)) == 1:
        return ""
    widths = ", ".join(str(shape[0]) for shape in shapes)
    return (
        f"the target returns a tuple, with {widths} values per record; the first is used as class scores: where it is "
        "not, give a function or forward that returns the class scores alone"
    )
