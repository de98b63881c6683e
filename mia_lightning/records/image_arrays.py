"""Images of any layout and dtype as (N, C, H, W); other records as they are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError


def input_column(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return records of any other shape, (N, ...), as uint8, int64, float32 or float64.

    Args:
        array: Integers or floating point, any shape; booleans become 0 and 1.
        name: the file, for messages.

    Raises:
        MIAError: a single axis, text, objects or complex numbers.
    """
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise MIAError(f"{name}: inputs have shape {array.shape}; expected (N, ...), one row of values per record")
    if array.dtype in (np.uint8, np.int64, np.float32, np.float64) and array.dtype.isnative:
        return np.asarray(array, np.float32) if array.ndim == 4 and array.dtype.kind == "f" else array
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise MIAError(f"{name}: inputs are {array.dtype}; expected numbers as uint8, int64, float32 or float64")
    if array.dtype == np.float64:  # of another byte order
        return array.astype(np.float64)
    return array.astype({"b": np.uint8, "f": np.float32}.get(array.dtype.kind, np.int64))


def image_column(
    array: NDArray[Any], name: str, notes: list[str] | None = None
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return images as (N, C, H, W), uint8 or float32, values untouched.

    Args:
        array: (N, H, W), (N, C, H, W), or (N, H, W, C) where the last axis is 1 or 3 and the second is not; uint8,
            integers in 0..255, or floating point, of which float64 is rounded to float32.
        name: the file, for messages.
        notes: list that receives a note about a conversion.

    Raises:
        MIAError: another shape, number of channels or dtype.
    """
    mapped = isinstance(array, np.memmap)  # axes may change places, but nothing may be copied
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise MIAError(f"{name}: images have shape {array.shape}; expected (N, channels, height, width)")
    if array.shape[1] not in (1, 3):
        if array.shape[3] not in (1, 3):
            alpha = 4 in (array.shape[1], array.shape[3])
            fix = ", such as images[:, :3] of RGBA" if array.shape[1] == 4 else ", such as images[..., :3] of RGBA"
            raise MIAError(
                f"{name}: images have shape {array.shape}; expected 1 or 3 channels on the second axis"
                f"{fix if alpha else ''}"
            )
        array = array.transpose(0, 3, 1, 2)
    if mapped and array.dtype in (np.uint8, np.float32):
        return array
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind in "iu" and len(array) and array.min() >= 0 and array.max() <= 255:
        if notes is not None:
            notes.append(f"{name}: images are {array.dtype} in 0..255, read as uint8")
        return np.ascontiguousarray(array, dtype=np.uint8)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise MIAError(f"{name}: images are {array.dtype}; expected uint8 or float32, scaled as in training")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which Records reports with the record's id
        return np.ascontiguousarray(array, dtype=np.float32)
