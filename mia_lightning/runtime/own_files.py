"""Reading files that this tool wrote: regular files only, checked against a schema before use."""

import json
import math
import os
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mia_lightning.errors import MIAError
from mia_lightning.security.open import open_own

T = TypeVar("T")

JSON_BYTES = 64 << 20
"""Size of the largest JSON file that is read."""

BLOCK = 4096
"""Rows that are checked at once."""

_PLAIN: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool),
    float: lambda value: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
    types.NoneType: lambda value: value is None,
}
"""Whether a JSON value is of a plain type; floats are finite."""


class DamagedFileError(MIAError):
    """A file of our own that is not as it was written; the sentence names the file and what is wrong."""


@dataclass(frozen=True)
class ArraySpec:
    """Schema of an array."""

    dtype: DTypeLike
    shape: tuple[int | None, ...]
    """None = of any length."""

    is_finite: bool = False
    """Whether NaN and infinite values are errors."""

    bounds: tuple[float, float] | None = None
    """Smallest and largest value."""

    def check(self, name: str, array: NDArray[Any]) -> None:
        """Raise ValueError, with a short reason, if an array does not fit."""
        self.check_header(name, array.dtype, array.shape)
        for start in range(0, len(array), BLOCK):
            block = array[start : start + BLOCK]
            if self.is_finite and not np.isfinite(block).all():
                raise ValueError(f"{name} has NaN or infinite values")
            if self.bounds and block.size and not (self.bounds[0] <= block.min() and block.max() <= self.bounds[1]):
                raise ValueError(f"{name} has values out of range")

    def check_header(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        """Raise ValueError if dtype or shape do not fit."""
        if np.dtype(dtype) != np.dtype(self.dtype):
            raise ValueError(f"{name} is {np.dtype(dtype)}; expected {np.dtype(self.dtype)}")
        if len(shape) != len(self.shape) or any(e not in (None, n) for e, n in zip(self.shape, shape, strict=True)):
            raise ValueError(f"{name} has shape {shape}; expected {self.shape}")


def read_bytes(path: Path, *, limit: int | None = None) -> bytes:
    """Return the content of a regular file that is not a symbolic link.

    Raises:
        FileNotFoundError: it does not exist.
        DamagedFileError: it is another kind of file, has more bytes than the limit, or cannot be read.
    """
    with _damage_reported(path), open_own(path) as file:
        if limit is not None and os.fstat(file.fileno()).st_size > limit:
            raise DamagedFileError(f"{path}: is larger than {limit} bytes; delete it and rerun")
        return file.read()


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Turn the errors of opening and reading a file that exists into `DamagedFileError`."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror}); delete it and rerun") from error
    except MIAError as error:
        raise DamagedFileError(str(error)) from error
    except (ValueError, EOFError, TypeError, OverflowError, SyntaxError) as error:
        raise DamagedFileError(f"{path}: is damaged ({str(error)[:100]}); delete it and rerun") from error


def read_json(path: Path, schema: type[T]) -> T:
    """Return the content of a JSON file as a dataclass whose fields have plain types, lists, dicts or dataclasses.

    Raises:
        FileNotFoundError: it does not exist.
        DamagedFileError: it is not JSON, or a value is missing, unknown, of another type, NaN or infinite.
    """
    text = read_bytes(path, limit=JSON_BYTES)
    with _damage_reported(path):
        return parse_json(text, schema)


def parse_json(text: bytes | str, schema: type[T]) -> T:
    """Return JSON as a dataclass (see `read_json`).

    Raises:
        ValueError: with a short reason.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("not JSON") from None
    return cast(T, build(schema, value))


def build(annotation: Any, value: Any, name: str = "content") -> Any:
    """Return plain data as the annotated type, unchanged but for dataclasses and tuples.

    Raises:
        ValueError: it does not fit, with the name of the value that does not.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if is_dataclass(annotation):
        return _build_dataclass(annotation, value, name)
    if origin in (Union, types.UnionType):
        return _first_of(arguments, value, name)
    if origin is Literal:
        if isinstance(value, str | int) and value in arguments:
            return value
        raise ValueError(f"{name} is not one of {', '.join(map(str, arguments))}")
    if origin in (list, tuple):
        if not isinstance(value, list) or (
            origin is tuple and arguments[-1] is not ... and len(value) != len(arguments)
        ):
            raise ValueError(f"{name} is not a list of the right length")
        types_ = arguments if origin is tuple and arguments[-1] is not ... else arguments[:1] * len(value)
        return origin(build(t, item, name) for t, item in zip(types_, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name} is not a mapping")
        return {key: build(arguments[1], item, name) for key, item in value.items()}
    fits = _PLAIN.get(annotation)
    if fits is None:
        raise TypeError(f"no schema for {annotation}")
    if not fits(value):
        raise ValueError(f"{name} is not of type {getattr(annotation, '__name__', annotation)}")
    return value


def _build_dataclass(cls: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a mapping")
    annotations = get_type_hints(cls)
    names = {field.name for field in fields(cls)}
    if unknown := sorted(set(value) - names):
        raise ValueError(f"unknown value {unknown[0][:40]!r}")
    for field in fields(cls):
        if field.name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{field.name} is missing")
    return cls(**{key: build(annotations[key], item, key) for key, item in value.items()})


def _first_of(annotations: tuple[Any, ...], value: Any, name: str) -> Any:
    for annotation in annotations:
        try:
            return build(annotation, value, name)
        except ValueError as error:
            reason = error
    raise reason


def read_array(path: Path, spec: ArraySpec) -> NDArray[Any]:
    """Return the array of a .npy file.

    Raises:
        FileNotFoundError: it does not exist.
        DamagedFileError: it is not a .npy file, or the array does not fit the schema.
    """
    with _damage_reported(path), open_own(path) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError("unknown version of the .npy format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        spec.check_header("the array", dtype, shape)
        if os.fstat(file.fileno()).st_size != file.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError("wrong size")
        file.seek(0)
        array = np.load(file, allow_pickle=False)
        spec.check("the array", array)
        return cast(NDArray[Any], array)
