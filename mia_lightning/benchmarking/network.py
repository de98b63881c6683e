"""Small networks for benchmarks on a processor."""

from __future__ import annotations

from torch import nn


def small_network(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return three convolutions of 16, 32 and 64 channels with batch norm and pooling, for images from 8x8 pixels.

    For rows of a table it is a perceptron with two hidden layers of 64 units.

    Args:
        shape: (C, H, W) of an image, or (F,) of a row.
        classes: C, the number of logits.
    """
    if len(shape) == 1:
        hidden = [nn.Linear(shape[0], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
        return nn.Sequential(*hidden, nn.Linear(64, classes))
    blocks: list[nn.Module] = []
    for inputs, outputs in ((shape[0], 16), (16, 32), (32, 64)):
        blocks += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        blocks += [nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, classes))
