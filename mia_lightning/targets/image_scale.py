"""Scale of stored images against the normalization, and gray images for targets that take RGB."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.lazy_images import LazyImages
from mia_lightning.records.normalization import normalization
from mia_lightning.records.records import Records

BYTES = 2.0
"""Images whose largest value exceeds this are not in [0, 1]: where none is negative, they are on the scale 0..255."""

SAMPLE = 512
"""Images whose values are read, spread over the records."""


def gray_to_rgb(records: Records) -> Records:
    """Return the records with their single channel repeated three times.

    Raises:
        MIAError: the images have more channels than one.
    """
    if not records.is_image:
        raise MIAError(f"--data.gray_to_rgb true: {records.source} has {records.described}, no images; leave it out")
    if isinstance(records.images, LazyImages):
        raise MIAError("--data.gray_to_rgb true: image files are decoded to RGB already; leave it out")
    channels = records.images.shape[1]
    if channels != 1:
        raise MIAError(f"--data.gray_to_rgb true: the images of {records.source} have {channels} channels already")
    images: NDArray[Any] = np.repeat(records.images, 3, axis=1)
    return replace(records, images=images)


def check_scale(
    public: Records, private: Records | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """Refuse a normalization on another scale than the images, and halves on different scales.

    uint8 images are divided by 255 before they are normalized, so mean and standard deviation lie in [0, 1].

    Raises:
        MIAError: one of these, or mean or standard deviation is NaN or infinite.
    """
    if not public.is_image or isinstance(public.images, LazyImages):
        normalization(public, mean, std)  # refuses both
        return
    values = [*(mean or ()), *(std or ())]
    if not np.isfinite(values).all():
        raise MIAError("--data.mean and --data.std must be finite numbers, one per channel")
    if public.images.dtype == np.uint8 and values and not (min(values) >= 0 and max(values) <= 1):
        raise MIAError(
            f"--data.mean and --data.std must lie in [0, 1], since 8-bit images are divided by 255 first; got "
            f"{min(values):g} to {max(values):g}{_divided(mean, std)}"
        )
    scale = scale_of(public.images)
    if scale == "0..255" and public.images.dtype != np.uint8 and mean and std and 0 < max(mean) <= 1 and max(std) <= 1:
        raise MIAError(
            f"the images of {public.source} are floats on the scale 0..255, but --data.mean and --data.std are on the "
            f"scale [0, 1]; store the images as uint8 or divided by 255, or give --data.mean {option_list(mean, 255)} "
            f"--data.std {option_list(std, 255)}"
        )
    if private is not None and (other := _network_scale(private)) != (mine := _network_scale(public)):
        raise MIAError(
            f"the images of {public.source} are on the scale {mine}, but those of {private.source} on {other}; "
            "store both on one scale"
        )


def scale_of(images: NDArray[np.generic]) -> str:
    """Return the scale of images (N, C, H, W): "0..255", "[0, 1]" or "normalized" (with negative values)."""
    if images.dtype == np.uint8:
        return "0..255"
    sample = images[:: max(1, len(images) // SAMPLE)][:SAMPLE].astype(np.float32)
    if float(sample.min(initial=0)) < 0:
        return "normalized"
    return "0..255" if float(sample.max(initial=0)) > BYTES else "[0, 1]"


def _network_scale(records: Records) -> str:
    """Return the scale that the normalization receives: uint8 is divided by 255, floats are taken as stored."""
    return "[0, 1]" if records.images.dtype == np.uint8 else scale_of(records.images)


def _divided(mean: Sequence[float] | None, std: Sequence[float] | None) -> str:
    if mean and std and min(*mean, *std) >= 0 and max(*mean, *std) <= 255:
        return f"; give --data.mean {option_list(mean, 1 / 255)} --data.std {option_list(std, 1 / 255)}"
    return ""


def option_list(values: Sequence[float] | NDArray[np.floating], factor: float = 1.0) -> str:
    """Return values times a factor as an option holds them: "[0.5, 0.25]"."""
    return "[" + ", ".join(f"{value * factor:.4g}" for value in values) + "]"
