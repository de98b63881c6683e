"""Pixel features of single images for the blind baseline: what a source, camera, crop or compression leaves behind.

Every feature is computed from one image alone. Beyond the moments of `records.pixel_statistics` there are traces of
compression on the 8 x 8 grid of JPEG, color casts, borders and mirroring.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mia_lightning.metrics.ranks import Array
from mia_lightning.records.pixel_statistics import pixel_statistics

Columns = dict[str, NDArray[np.floating]]
Images = NDArray[np.uint8] | NDArray[np.float32]

BLOCK = 1024
"""Images per block; a memory-mapped file is never copied as a whole."""

WINDOW = 64
"""Most rows and columns of an image that the features of the grid, the noise and the gradients read."""

DIGITS = 5
"""Decimals of a feature; further ones of single-precision sums depend on the place of an image in its block."""

GRID = 8
"""Side of JPEG's blocks."""


def pixel_features(images: Images) -> dict[str, Array]:
    """Return features by name, (N,) each, finite.

    Args:
        images: (N, C, H, W), uint8 or floats.
    """
    features = dict(pixel_statistics(images))
    blocks = [_features(_window(images[start : start + BLOCK])) for start in range(0, len(images), BLOCK)]
    return features | {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _window(images: Images) -> NDArray[np.float32]:
    """Return the images in units of 1/255 where they are floats in [0, 1], rows and columns near the border kept."""
    scale = 1.0 if images.dtype == np.uint8 or images.max(initial=0) > 2 else 255.0
    for axis in (2, 3):
        if images.shape[axis] > WINDOW:
            half = WINDOW // 2
            picked = np.r_[:half, images.shape[axis] - half : images.shape[axis]]
            images = np.take(images, picked, axis=axis)
    return images.astype(np.float32) * np.float32(scale)


def _features(values: NDArray[np.float32]) -> dict[str, Array]:
    groups: tuple[Callable[[NDArray[np.float32]], Columns], ...] = (_borders, _grid, _compression, _mirroring, _color)
    features: Columns = {}
    for group in groups:
        features |= group(values)
    return {name: np.asarray(np.round(np.asarray(column, np.float64), DIGITS)) for name, column in features.items()}


def _borders(values: NDArray[np.float32]) -> Columns:
    """Steps between the two outermost rows or columns: 0 after padding by repetition, small after some resizes."""
    sides: Columns = {}
    for axis, names in ((2, ("top", "bottom")), (3, ("left", "right"))):
        if values.shape[axis] < 4:
            continue
        steps = np.abs(np.diff(values, axis=axis)).mean(axis=(1, 5 - axis))  # (N, size - 1)
        inner = steps.mean(axis=1) + 1e-3
        sides |= {f"step at the {names[0]}": steps[:, 0] / inner, f"step at the {names[1]}": steps[:, -1] / inner}
        lines = values.std(axis=(1, 5 - axis))
        sides |= {f"spread at the {names[0]}": lines[:, 0], f"spread at the {names[1]}": lines[:, -1]}
    return sides


def _grid(values: NDArray[np.float32]) -> Columns:
    """Mean steps across columns and rows by their phase on the grid, relative to the mean: blocking and its shifts."""
    phases: Columns = {}
    for axis, name in ((2, "rows"), (3, "columns")):
        if values.shape[axis] < 2 * GRID + 1:
            continue
        steps = np.abs(np.diff(values, 2, axis=axis)).mean(axis=(1, 5 - axis))
        mean = steps.mean(axis=1) + 1e-3
        phases |= {f"grid, {name}, phase {phase}": steps[:, phase::GRID].mean(axis=1) / mean for phase in range(GRID)}
    return phases


def _compression(values: NDArray[np.float32]) -> Columns:
    """Energy of the cosine transform by frequency, for brightness and two color differences."""
    rows, columns = (size // GRID * GRID for size in values.shape[2:])
    if not rows or not columns:
        return {}
    features: Columns = {}
    for name, plane in _planes(values).items():
        blocks = plane[:, :rows, :columns].reshape(len(plane), rows // GRID, GRID, columns // GRID, GRID)
        cosines = _cosines()
        coefficients = np.einsum("ux,nixjy,vy->nijuv", cosines, blocks, cosines, optimize=True)
        size = np.abs(coefficients).reshape(len(plane), -1, GRID, GRID)
        order = np.add.outer(np.arange(GRID), np.arange(GRID))
        for low, high in ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 14)):
            band = size[:, :, (order >= low) & (order <= high)]
            features[f"{name}, frequencies {low}-{high}"] = np.log(band.mean(axis=(1, 2)) + 0.05)
            features[f"{name}, frequencies {low}-{high}, near 0"] = (band < 0.6).mean(axis=(1, 2))
    return features


def _planes(values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    if values.shape[1] != 3:
        return {"brightness": values[:, 0]}
    red, green, blue = values[:, 0], values[:, 1], values[:, 2]
    brightness = 0.299 * red + 0.587 * green + 0.114 * blue
    return {
        "brightness": brightness,
        "blue difference": 0.564 * (blue - brightness),
        "red difference": 0.713 * (red - brightness),
    }


def _cosines() -> NDArray[np.float32]:
    """Return the (8, 8) orthonormal cosine transform, type II."""
    steps = np.arange(GRID)
    matrix = np.sqrt(2 / GRID) * np.cos(np.pi * (2 * steps[None] + 1) * steps[:, None] / (2 * GRID))
    matrix[0] /= np.sqrt(2)
    result: NDArray[np.float32] = matrix.astype(np.float32)
    return result


def _mirroring(values: NDArray[np.float32]) -> Columns:
    """Asymmetries that change their sign when left and right are exchanged."""
    if values.shape[3] < 5:
        return {}
    gray = values.mean(axis=1)
    step = np.diff(gray, axis=2)
    half = values.shape[3] // 2
    features: Columns = {
        "right minus left": gray[:, :, -half:].mean(axis=(1, 2)) - gray[:, :, :half].mean(axis=(1, 2)),
        "skew of horizontal steps": (step**3).mean(axis=(1, 2)) / ((step**2).mean(axis=(1, 2)) + 1) ** 1.5,
    }
    curve = np.diff(gray, 2, axis=2)
    features["slope against curve"] = (step[:, :, :-1] * curve).mean(axis=(1, 2)) / ((step**2).mean(axis=(1, 2)) + 1)
    phases = np.abs(step).mean(axis=1)
    odd, even = phases[:, 1::2].mean(axis=1), phases[:, ::2].mean(axis=1)
    features["odd against even columns"] = odd / (even + 1e-3)
    for first, second in ((0, 1), (1, 2)) if values.shape[1] == 3 else ():
        a, b = (values[:, channel] - values[:, channel].mean(axis=(1, 2), keepdims=True) for channel in (first, second))
        ahead, behind = (a[:, :, :-1] * b[:, :, 1:]).mean(axis=(1, 2)), (a[:, :, 1:] * b[:, :, :-1]).mean(axis=(1, 2))
        energy = np.diff(a, axis=2)[:, :, :].std(axis=(1, 2)) * np.diff(b, axis=2).std(axis=(1, 2)) + 1
        features[f"shift of channel {second} against {first}"] = (ahead - behind) / energy
    return features


def _color(values: NDArray[np.float32]) -> Columns:
    """Casts: differences of channels on average, in shadows and in highlights, and where the picture has no color."""
    if values.shape[1] != 3:
        return {}
    flat = values.reshape(len(values), 3, -1)
    ordered = np.sort(flat, axis=2)
    last = flat.shape[2] - 1
    features: Columns = {}
    for first, second in ((0, 1), (1, 2)):
        gap = flat[:, first] - flat[:, second]
        name = f"channel {first} minus {second}"
        features[name] = gap.mean(axis=1)
        features[f"{name}, median"] = np.median(gap, axis=1)
        features[f"{name}, smallest size"] = np.take_along_axis(gap, np.abs(gap).argmin(axis=1)[:, None], 1)[:, 0]
        for part, at in (("lowest", 0.0), ("shadows", 0.02), ("highlights", 0.98), ("highest", 1.0)):
            position = round(at * last)
            features[f"{name}, {part}"] = ordered[:, first, position] - ordered[:, second, position]
    for channel in range(3):
        features[f"lowest of channel {channel}"] = ordered[:, channel, 0]
        features[f"highest of channel {channel}"] = ordered[:, channel, -1]
        features[f"share at 255 of channel {channel}"] = (flat[:, channel] >= 254.5).mean(axis=1)
        features[f"share at 0 of channel {channel}"] = (flat[:, channel] < 0.5).mean(axis=1)
    return features
