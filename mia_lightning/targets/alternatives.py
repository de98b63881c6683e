"""Other readings of the same records and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mia_lightning.records.normalization import channel_statistics
from mia_lightning.records.records import Records
from mia_lightning.targets.architectures import STEMS, stem_of
from mia_lightning.targets.base import Stem, Target, TargetForm
from mia_lightning.targets.image_scale import option_list, scale_of
from mia_lightning.targets.wrapper import unwrap

Mask = NDArray[np.bool_]

PUBLISHED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's normalization": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10's normalization": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100's normalization": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "SVHN's normalization": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "images in [-1, 1]": ((0.5,), (0.5,)),
    "MNIST's normalization": ((0.1307,), (0.3081,)),
    "Fashion-MNIST's normalization": ((0.2860,), (0.3530,)),
}
"""Mean and standard deviation per channel, as the usual training scripts state them."""

SIDES = (28, 32, 48, 64, 96, 128, 224, 256, 299)
"""Usual sides of resized training images."""

LARGEST_COST = 16.0
"""Most pixels of another size, relative to the configured one; larger sizes are tried only up to 64 pixels."""


@dataclass(frozen=True)
class Alternative:
    """Another reading of the records."""

    name: str
    option: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: int | None = None
    transform: str | None = None
    stem: Stem | None = None
    network: nn.Module | None = None
    """Network of another set of weights of the file."""

    cost: float = 1.0
    """Pixels per image, relative to the configured reading."""

    is_neighbor: bool = False
    """A normalization so close to the configured one that it may suit an underfitted network better by accident."""

    @property
    def changes_images(self) -> bool:
        """Whether the network's inputs, first layers or weights change, rather than the order of the classes."""
        return any(value is not None for value in (self.mean, self.resize, self.transform, self.stem, self.network))

    @property
    def changes_network(self) -> bool:
        """Whether more than mean and standard deviation change."""
        return any(value is not None for value in (self.resize, self.transform, self.stem, self.network))

    @property
    def combines(self) -> bool:
        """Whether a normalization can be combined with it."""
        return self.changes_network and self.mean is None and self.network is None

    @property
    def is_normalization(self) -> bool:
        """Whether only mean and standard deviation change."""
        return self.mean is not None and not self.changes_network

    def combined(self, other: Alternative) -> Alternative:
        """Return this normalization together with a size, a channel order or first layers."""
        return replace(
            other,
            name=f"{self.name} and {other.name}",
            option=f"{self.option} {other.option}",
            mean=self.mean,
            std=self.std,
        )


def alternatives(target: Target, public: Records, mean: Sequence[float], std: Sequence[float]) -> list[Alternative]:
    """Return the readings to try: each changes one thing of the configured one."""
    form, shape = target.form, public.images.shape[1:]
    if not mean:  # inputs that are passed on as they are stored
        return []
    return [
        *_normalizations(public, mean, std),
        *_sizes(shape, form),
        *_channel_orders(shape, mean, std, form),
        *_stems(target),
    ]


def other_weights(networks: Mapping[str, nn.Module]) -> list[Alternative]:
    """Return the readings of a checkpoint's other sets of weights, by their `--target.weights`."""
    return [
        Alternative(f"the weights {name}", f"--target.weights {name}", network=network)
        for name, network in networks.items()
    ]


def _normalizations(public: Records, mean: Sequence[float], std: Sequence[float]) -> Iterator[Alternative]:
    channels = public.images.shape[1]
    scale = scale_of(public.images)
    unit = 255.0 if public.images.dtype != np.uint8 and scale == "0..255" else 1.0
    named: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {"no normalization": ((0.0,), (1.0,))}
    if scale != "normalized":  # another normalization on top would be none of any training
        named |= {"images in 0..255": ((0.0,), (1 / 255,))} | PUBLISHED
    readings = {name: (m, s) for name, (m, s) in named.items() if len(m) in (1, channels)}
    readings["the images' own mean and standard deviation"] = tuple(
        tuple(value / unit for value in values) for values in channel_statistics(public.images)
    )  # type: ignore[assignment]
    if unit > 1:
        readings["the mean and standard deviation on the scale of the images"] = (tuple(mean), tuple(std))
    seen = [(np.asarray(mean), np.asarray(std))]
    for name, (m, s) in readings.items():
        full = np.resize(m, channels) * unit, np.resize(s, channels) * unit
        if any(np.allclose(full[0], a, atol=0.02 * unit) and np.allclose(full[1], b, rtol=0.05) for a, b in seen):
            continue
        seen.append(full)
        option = f"--data.mean {option_list(full[0])} --data.std {option_list(full[1])}"
        ratio = full[1] / np.asarray(std)
        near = bool(np.all(np.abs(full[0] - mean) < 0.25 * unit) and np.all((ratio > 0.5) & (ratio < 2)))
        yield Alternative(name, option, tuple(full[0].tolist()), tuple(full[1].tolist()), is_neighbor=near)


def _sizes(shape: tuple[int, ...], form: TargetForm) -> Iterator[Alternative]:
    height, width = (form.resize, form.resize) if form.resize else shape[1:]
    for side in SIDES:
        cost = side * side / (height * width)
        if (side, side) != (height, width) and (cost <= LARGEST_COST or side <= 64):
            yield Alternative(
                f"images resized to {side}x{side}", f"--data.resize {side}", resize=side, cost=max(cost, 1.0)
            )


def _channel_orders(
    shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float], form: TargetForm
) -> Iterator[Alternative]:
    if form.transform is not None:
        return
    module = "mia_lightning.targets.transforms"
    if shape[0] == 3:
        option, name = f"--data.transform {module}:reverse_channels", "channels in the order BGR"
        yield Alternative(name, option, transform=f"{module}:reverse_channels")
        flipped = tuple(mean)[::-1], tuple(std)[::-1]
        if not np.allclose([mean, std], flipped, atol=0.01):
            words = f"{option} --data.mean {option_list(flipped[0])} --data.std {option_list(flipped[1])}"
            yield Alternative(name, words, *flipped, transform=f"{module}:reverse_channels")
    if shape[1] == shape[2]:
        option = f"--data.transform {module}:transpose"
        yield Alternative("rows and columns exchanged", option, transform=f"{module}:transpose")


def _stems(target: Target) -> Iterator[Alternative]:
    configured = stem_of(unwrap(target.network)) if ":" not in target.architecture else None
    if configured is not None:
        for stem, (stride, pools) in STEMS.items():
            if stem != configured:
                pooling = "with" if pools else "without"
                cost = (STEMS[configured][0] * (1 + STEMS[configured][1])) ** 2 / (stride * (1 + pools)) ** 2
                yield Alternative(
                    f"a first convolution of stride {stride} {pooling} max-pooling",
                    f"--target.stem {stem}",
                    stem=stem,
                    cost=max(cost, 1.0),
                )


def class_orders(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], target: Target
) -> Iterator[tuple[Alternative, NDArray[np.int64], Mask]]:
    """Yield other orders of the classes, the output (K,) for each class, and the rows (N,) they may be judged on.

    Labels counted from 1, classes sorted as text ("10" before "2"), and the best permutation, which is fitted on every
    other record and judged on the rest.
    """
    from scipy.optimize import linear_sum_assignment

    classes = target.num_classes
    indices, everywhere = np.arange(classes), np.ones(len(labels), bool)
    as_text = np.argsort(np.argsort(indices.astype(str)))
    orders = {
        "labels counted from 1": np.roll(indices, 1),
        "labels counted from 0 instead of 1": np.roll(indices, -1),
        "classes sorted as text": as_text,
    }
    for name, order in orders.items():
        if not np.array_equal(order, indices) and classes > 2:
            yield Alternative(name, _order_option(order, target)), order, everywhere
    if classes <= 1000:
        fitted = np.arange(len(labels)) % 2 == 0
        counts = np.zeros((classes, classes))
        np.add.at(counts, (labels[fitted], predicted[fitted]), 1)
        order = linear_sum_assignment(counts + 1e-3 * np.eye(classes), maximize=True)[1]
        if not np.array_equal(order, indices):
            name = "the two classes exchanged" if classes == 2 else "another order of the classes"
            yield Alternative(name, _order_option(order, target)), order, ~fitted


def _order_option(order: NDArray[np.int64], target: Target) -> str:
    earlier = target.form.class_order
    values = order.tolist() if earlier is None else [earlier[index] for index in order]
    if len(values) > 200:
        return "--target.class_order with the output for each class"
    return f"--target.class_order [{', '.join(map(str, values))}]"
