"""Targets: a checkpoint file into a classifier in eval mode. Importing this package does not import torch."""

from mia_lightning.targets.base import Target

__all__ = ["Target", "architecture_names", "check_fits", "load_target"]


def load_target(
    checkpoint: str | None,
    *,
    architecture: str = "auto",
    num_classes: int | None = None,
    feature_layer: str | None = None,
) -> Target:
    """Return the classifier that a checkpoint file holds: eval mode, float32, on the CPU, without gradients.

    No pickle of the file is executed.

    Args:
        checkpoint: A state dict (torch.save, zip or legacy), a Lightning `.ckpt`, a `.safetensors` file or a
            `torch.export` program; recognized by content, not by name. None where the architecture is a class or
            function that returns the network trained.
        architecture: "auto" (a torchvision ResNet read from the weights, or a program), a name of
            `architecture_names()`, or "package.module:Class".
        num_classes: Number of classes; None reads it from the weights.
        feature_layer: Name of the submodule whose input is the penultimate feature vector; None looks for it.

    Raises:
        MIAError: the file is missing, truncated, not a checkpoint, asks for code, holds NaN or infinite weights, or
            does not fit the architecture; or the architecture, the classes or the layer do not exist.
    """
    from mia_lightning.targets.load import load

    return load(checkpoint, architecture, num_classes, feature_layer)


def architecture_names() -> list[str]:
    """Return the torchvision classifiers that `architecture` may name, sorted. Imports torchvision."""
    from mia_lightning.targets.architectures import names

    return names()


def check_fits(target: Target, image_shape: tuple[int, int, int]) -> None:
    """Raise MIAError where the target does not take images (C, H, W) or does not answer with finite logits."""
    from mia_lightning.targets.checks import check

    check(target, image_shape)
