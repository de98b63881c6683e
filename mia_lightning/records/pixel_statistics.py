"""Pixel statistics of an image that reveal its source and preprocessing without any model."""

import numpy as np
from numpy.typing import NDArray

BLOCK = 2048


def pixel_statistics(images: NDArray[np.uint8] | NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return per-record statistics by name, (N,) each, on the scale of the stored pixels.

    lowest, highest, mean, std; the mean of each channel where there are several; roughness (mean step between
    horizontal and vertical neighbors, which resizing and compression change); off-grid (share of pixels that are not
    multiples of 1/255, as in images that were resized in floating point).

    Args:
        images: (N, C, H, W), read in blocks so that a memory-mapped file is never copied completely.
    """
    blocks = [_statistics(images[start : start + BLOCK]) for start in range(0, len(images), BLOCK)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _statistics(images: NDArray[np.uint8] | NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    values = images.astype(np.float64)
    rows = values.reshape(len(values), -1)
    statistics = {"lowest": rows.min(1), "highest": rows.max(1), "mean": rows.mean(1), "std": rows.std(1)}
    if values.shape[1] > 1:
        statistics |= {f"mean of channel {c}": values[:, c].mean(axis=(1, 2)) for c in range(values.shape[1])}
    statistics["roughness"] = sum(
        (np.abs(np.diff(values, axis=axis)).mean(axis=(1, 2, 3)) for axis in (2, 3) if values.shape[axis] > 1),
        start=np.zeros(len(values)),
    )
    steps = rows if images.dtype == np.uint8 else 255 * rows
    statistics["off-grid"] = (np.abs(steps - np.round(steps)) > 1e-3).mean(axis=1)
    return statistics
