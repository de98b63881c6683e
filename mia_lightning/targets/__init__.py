"""Targets: a checkpoint file into a classifier in eval mode. Importing this package does not import torch.

A target of your own is one file on the current folder or path (`--target.architecture my_model:Net`)::

    from torch import nn

    class Net(nn.Module):
        def __init__(self, num_classes=10):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.fc = nn.Linear(8, num_classes)

        def forward(self, images):
            return self.fc(self.conv(images).relu().mean(dim=(2, 3)))
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mia_lightning.records.features import Features
from mia_lightning.targets.base import LoadOptions, Target, TargetForm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_lightning.records.features import Categories
    from mia_lightning.targets.base import OutputKind, Stem

__all__ = ["Target", "TargetForm", "architecture_names", "check_fits", "load_target"]


def load_target(
    checkpoint: str | None,
    *,
    architecture: str = "auto",
    num_classes: int | None = None,
    feature_layer: str | None = None,
    weights: str | None = None,
    output: OutputKind | str = "auto",
    stem: Stem = "auto",
    resize: int | None = None,
    transform: str | None = None,
    class_order: tuple[int, ...] | None = None,
    image_shape: tuple[int, ...] | None = None,
    sample: NDArray[Any] | None = None,
    feature_names: tuple[str, ...] | None = None,
    categories: Categories | None = None,
    multi_label: bool = False,
) -> Target:
    """Return the classifier in a checkpoint file: eval mode, float32, on the CPU, without gradients.

    No pickle of the file is executed.

    Args:
        checkpoint: A state dict (torch.save, zip or legacy, or pickle.dump), a Lightning `.ckpt`, a `.safetensors`
            file, a `torch.export` program or a `.skops` file of scikit-learn; recognized by content, not by name. None
            where the architecture is a class or function that returns the network, or an estimator, trained.
        architecture: "auto" (a torchvision ResNet read from the weights, or a program), a name of
            `architecture_names()`, or "package.module:Class". A LightningModule is built with the hyper-parameters of
            its checkpoint.
        num_classes: Number of classes; None reads it from the weights.
        feature_layer: Name of the submodule whose input is the penultimate feature vector; None looks for it.
        weights: Name of the set of weights where the file contains several, such as "state_dict_ema".
        output: Output of the network; "auto" recognizes it from the values, see `OutputKind`.
        stem: First layers of a torchvision ResNet, see `Stem`.
        resize: Side in pixels to which normalized images are resized.
        transform: "package.module:function" applied to normalized images, see `mia_lightning.targets.transforms`.
        class_order: Index of the network's output for each class.
        image_shape: (C, H, W) of the records, for a probe of the network; None tries the usual sizes.
        sample: (N, ...) inputs of some records that are not images, for the probe.
        feature_names: Columns of the records, for an estimator that was fitted on a DataFrame.
        categories: Texts of the columns of text by name, of which the records hold the positions.
        multi_label: Whether each output is that of an independent label.

    Raises:
        MIAError: the file is missing, truncated, not a checkpoint, malicious, has NaN or infinite weights, or does not
            fit the architecture; or an option does not fit the network.
    """
    from mia_lightning.targets.load import load

    form = TargetForm(stem=stem, resize=resize, transform=transform, class_order=class_order)
    options = LoadOptions(architecture, num_classes, feature_layer, weights, output, form, image_shape)
    features = None if feature_names is None else Features(feature_names, categories or {})
    return load(checkpoint, replace(options, sample=sample, features=features, multi_label=multi_label))


def architecture_names() -> list[str]:
    """Return the torchvision classifiers that `architecture` may name, sorted. Imports torchvision."""
    from mia_lightning.targets.architectures import names

    return names()


def check_fits(target: Target, image_shape: tuple[int, ...]) -> None:
    """Raise MIAError where the target does not take images (C, H, W) or does not return finite logits."""
    from mia_lightning.targets.checks import check

    check(target, image_shape)
