"""The target classifier as the other stages see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from mia_lightning.records.features import Features

OutputKind = Literal[
    "logits",
    "log_probabilities",
    "log2_probabilities",
    "log10_probabilities",
    "probabilities",
    "sigmoids",
    "one_logit",
    "one_probability",
]
"""Output of a network, see `mia_lightning.targets.output_kind`."""

InputDtype = Literal["float32", "int64", "stored"]
"""Dtype that a target receives of records that are not images: an estimator takes them as stored, a network with an
embedding whole numbers."""

Stem = Literal["auto", "imagenet", "cifar", "stride1_pool", "stride2_no_pool"]
"""First layers of a torchvision ResNet: stride of the first convolution, and whether max-pooling follows it."""


@dataclass(frozen=True)
class TargetForm:
    """Everything around a network that the target and its reference models share. Picklable."""

    stem: Stem = "auto"

    resize: int | None = None
    """Side in pixels to which normalized images are resized; None leaves them."""

    transform: str | None = None
    """package.module:function, applied to normalized (and resized) batches (B, C, H, W) on their device."""

    output: OutputKind = "logits"
    """Output of the network; it is converted into logits."""

    item: str | int | None = None
    """Key, ".attribute" or position of the logits in a structured output; None where the output is one tensor."""

    class_order: tuple[int, ...] | None = None
    """Index of the network's output for each class; None is the identity."""

    copies_inputs: bool = False
    """Whether each batch is copied, as the network changes its inputs in place."""


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

    features: Features | None = None
    """Columns of the records, for estimators that were fitted on a DataFrame."""

    multi_label: bool = False


@dataclass(frozen=True, eq=False)
class Target:
    """A trained classifier in eval mode.

    `network(inputs)` takes normalized float images (B, C, H, W), or other records (B, ...), and returns float32 logits
    (B, classes).
    """

    network: nn.Module
    num_classes: int
    feature_layer: str | None
    """Name of the submodule whose *input* is the penultimate feature vector ("fc" of a ResNet); None: see
    `FeatureTap`."""

    architecture: str
    """As resolved: "resnet18", "resnet18 (CIFAR stem)", "package.module:Class", "torch.export"."""

    digest: str
    """sha256 (hex) of everything that determines the function: weights, architecture and form."""

    form: TargetForm = field(default_factory=TargetForm)
    """Preprocessing and kind of output, shared with reference models."""

    notes: tuple[str, ...] = ()
    """Sentences for the report: which weights were taken, which names left out, what the outputs are."""

    other_weights: tuple[str, ...] = ()
    """Names of further sets of weights in the checkpoint, as `--target.weights` takes them."""

    deterministic: bool = True
    """False where the same image was seen to give different logits."""

    hyper_parameters: Mapping[str, object] = field(default_factory=dict)
    """Plain values that Lightning saved with the weights, to build the network again."""

    input_dtype: InputDtype = "float32"
    """Dtype that the network receives of records that are not images."""

    untrained: Callable[[int], nn.Module] | None = None
    """Returns the network untrained from a seed, or raises MIAError; picklable. None builds it by the architecture's
    name."""

    trains_head_alone: bool = False
    """Whether of a target in memory only the last linear layer requires gradients."""

    epochs: int | None = None
    """Epochs that Lightning had finished when it saved the weights."""
