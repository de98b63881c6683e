"""Containers of an unpickled file, read without trusting their attributes."""

from collections.abc import Mapping
from typing import Any


def plain_dict(value: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the items of a mapping as a plain dict.

    A pickled OrderedDict may carry attributes named `get`, `items` or `keys`, which would be called in place of the
    methods; those of its type are called here.
    """
    return dict(dict.items(value)) if isinstance(value, dict) else dict(type(value).items(value))
