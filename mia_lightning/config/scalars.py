"""Scalar option values: booleans, integers, finite numbers and text, checked."""

import math
from collections.abc import Mapping
from typing import Any

from mia_lightning.errors import MIAError

LARGEST_INT = 2**31 - 1
LONGEST_TEXT = 4096


def _bool(value: Any, name: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise MIAError(f"--{name}: expected true or false, got {shown(value)}")


def _int(value: Any, name: str) -> int:
    if isinstance(value, str):
        try:
            value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
        except ValueError:
            raise MIAError(f"--{name}: expected int, got {shown(value)}") from None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise MIAError(f"--{name}: expected int, got {shown(value)}")
    if abs(value) > LARGEST_INT:
        raise MIAError(f"--{name}: {shown(value)} is out of range; at most {LARGEST_INT:,} is allowed")
    return value


def _float(value: Any, name: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise MIAError(f"--{name}: expected a number, got {shown(value)}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MIAError(f"--{name}: expected a number, got {shown(value)}")
    if (isinstance(value, int) and abs(value) > 2**1000) or not math.isfinite(value):
        raise MIAError(f"--{name}: expected a finite number, got {shown(value)}")
    return float(value)


def text_value(value: Any, name: str) -> str:
    """Return a value as text; numbers are written out.

    Raises:
        MIAError: no text, too long, or with control characters.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise MIAError(f"--{name}: expected text, got {shown(value)}")
    if len(value) > LONGEST_TEXT:
        raise MIAError(f"--{name}: {len(value):,} characters; at most {LONGEST_TEXT:,} are allowed")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value):
        raise MIAError(f"--{name}: {shown(value)} contains control characters; remove them")
    return value


def shown(value: Any) -> str:
    """Return a value for a message, at most 80 characters."""
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)}"
    if isinstance(value, list | tuple) and len(value) > 10:
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**30:
        return "an integer of over 30 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


SCALARS: dict[Any, Any] = {bool: _bool, int: _int, float: _float, str: text_value}
"""Function (value, option) -> checked value by type."""
