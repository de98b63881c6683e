"""Inert stand-ins for the classes that a pickled data set names.

torch's weights-only unpickler builds these in place of the classes that the file names. They keep the state they are
given and never run, import or call anything.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Refused(Exception):
    """The file uses its data-set class as anything but a plain container of columns."""


class DataSet:
    """An object of a data-set class; `state` is its attribute dict."""

    state: dict[str, Any]


WRAPPERS = tuple(f"torch.utils.data.dataset.{name}" for name in ("TensorDataset", "Subset", "ConcatDataset"))
"""Data sets of torch, which may contain data sets."""


def dataset_class(name: str, *, several: bool = False) -> type[Any]:
    """Return a new class that stands for `name`, without arguments, with a dict as state; one instance at most."""

    class Instance(DataSet):
        """The data set of one file."""

        made = 0

        def __new__(cls, *arguments: Any) -> "Instance":
            if arguments:
                raise Refused(f"it calls {name} with arguments")
            cls.made += 1
            if cls.made > 1 and not several:
                raise Refused(f"it builds several {name}")
            return super().__new__(cls)

        def __init__(self, *arguments: Any) -> None:
            pass

        def __setstate__(self, state: Any) -> None:
            if not isinstance(state, dict):
                raise Refused(f"the state of its {name} is a {type(state).__name__}, not a dict")
            self.state = state

    Instance.__name__ = name
    return Instance


class _Object:
    """An object that takes any arguments and state."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Unused(_Object):
    """An object next to the columns, such as a transform of torchvision."""


class Picture(_Object):
    """A pickled PIL image, or another PIL object that came along in its info."""

    def pixels(self) -> NDArray[np.uint8]:
        """Return uint8 pixels: (H, W) for mode L, else (H, W, 3).

        Raises:
            ValueError: the state is not that of an 8-bit image, or has not the number of bytes of its size.
        """
        state = getattr(self, "state", None)
        if not isinstance(state, list | tuple) or len(state) < 5:
            raise ValueError("not a PIL image")
        _, mode, size, palette, data = state[:5]
        width, height = (int(side) for side in size)
        channels = {"L": 1, "RGB": 3}.get(mode)
        if channels:
            shape = (height, width) if channels == 1 else (height, width, 3)
            return np.frombuffer(data, np.uint8).reshape(shape)
        if mode not in ("1", "P", "LA", "RGBA", "CMYK", "YCbCr"):
            raise ValueError(f"PIL mode {str(mode)[:20]!r} is not 8-bit")
        if not 0 < width * height <= 8 * len(data):  # before PIL allocates what the file merely claims
            raise ValueError("a PIL image holds fewer bytes than its size requires")
        from PIL import Image

        image = Image.frombytes(mode, (width, height), data)
        if palette:
            image.putpalette(palette)
        return np.asarray(image.convert("L" if mode == "1" else "RGB"))


class DType:
    """A pickled numpy dtype: its code, such as "f4", and byte order."""

    def __init__(self, *arguments: Any) -> None:
        self.code = arguments[0] if arguments else None
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        """Return the dtype; ValueError for anything but plain numbers and strings."""
        code, order = getattr(self, "code", None), getattr(self, "order", None)
        if not isinstance(code, str) or not re.fullmatch(r"[biufU]\d{1,4}", code) or order not in ("<", ">", "=", "|"):
            raise ValueError(f"numpy dtype {str(code)[:20]!r} is not plain numbers")
        return np.dtype(code).newbyteorder(order)


class Array(_Object):
    """A pickled numpy array."""

    def numpy(self) -> NDArray[Any]:
        """Return the array; ValueError when its bytes are not those of its shape and dtype."""
        state = getattr(self, "state", None)
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], DType):
            raise ValueError("not a numpy array")
        _, shape, dtype, fortran, data = state
        if not isinstance(data, bytes):
            raise ValueError("a numpy array of objects, not numbers")
        return np.frombuffer(data, dtype.numpy()).reshape(shape, order="F" if fortran else "C")


def reconstruct(*arguments: Any) -> Array:
    """Stand for numpy's `_reconstruct`: an empty array whose state follows."""
    return Array()


def scalar(*arguments: Any) -> Any:
    """Stand for numpy's `scalar`: a plain Python number; ValueError when the bytes are not one number."""
    if len(arguments) != 2 or not isinstance(arguments[0], DType) or not isinstance(arguments[1], bytes):
        raise ValueError("not a numpy scalar")
    return np.frombuffer(arguments[1], arguments[0].numpy()).reshape(()).item()


NUMPY: dict[str, Any] = {
    "numpy.ndarray": Array,
    "numpy.dtype": DType,
    **{f"numpy.{core}.multiarray._reconstruct": reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": scalar for core in ("core", "_core")},
}
