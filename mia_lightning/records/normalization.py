"""Mean and standard deviation per channel, given or computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.lazy_images import LazyImages
from mia_lightning.records.records import Records


def normalization(
    public: Records, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the given mean and standard deviation per channel, or those of the public images in [0, 1].

    Records that are not images are passed on as they are stored: both are empty.

    Raises:
        MIAError: not one value per channel, or values for records that are not images.
    """
    if not public.is_image or isinstance(public.images, LazyImages):
        if mean or std:
            raise MIAError(
                f"--data.mean and --data.std apply to stored images alone, but {public.source} has "
                f"{public.described}; leave them out, and scale in the target or --data.transform"
            )
        return (), ()
    channels = public.images.shape[1]
    if mean is None or std is None:
        return channel_statistics(public.images)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise MIAError(
                f"--data.{name} has {len(values)} values but the images of {public.source} have {channels} channels; "
                "give one per channel"
            )
    return tuple(mean), tuple(std)


def channel_statistics(
    images: NDArray[np.uint8] | NDArray[np.float32],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of (N, C, H, W) images, in float64 and in blocks."""
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    total = squares = np.zeros(images.shape[1])
    for start in range(0, len(images), 2048):
        block = images[start : start + 2048].astype(np.float64) / scale
        total = total + block.sum(axis=(0, 2, 3))
        squares = squares + (block**2).sum(axis=(0, 2, 3))
    count = len(images) * images.shape[2] * images.shape[3]
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())
