"""Descriptions of the distributions in a search space, checked."""

import math
from collections.abc import Mapping
from typing import Any

from mia_lightning.errors import MIAError, suggest

OPTIONS = {
    "uniform": ("low", "high", "steps"),
    "loguniform": ("low", "high", "steps"),
    "int": ("low", "high"),
    "choice": ("values",),
}
"""Options of each distribution; steps (default: 5) is the number of grid points."""

DIGITS = 4
"""Significant digits of a sampled number: enough for any rate, and readable."""

MOST_CHOICES, MOST_COMBINATIONS = 200, 10_000
"""Values of one choice, and combinations of a grid."""


def checked_distribution(key: str, description: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of a field's distribution and its options.

    Raises:
        MIAError: an unknown distribution, or options that it lacks or does not have.
    """
    options = dict(description)
    if "dist" not in options:
        raise MIAError(
            f"search.space.{key}: no dist is given; write {{dist: uniform, low: 0, high: 1}} or another of "
            f"{', '.join(sorted(OPTIONS))}"
        )
    name = options.pop("dist")
    if not isinstance(name, str) or name not in OPTIONS:
        raise MIAError(f"search.space.{key}: no distribution is named {name!r}; {suggest(str(name), OPTIONS)}")
    for option in options:
        if option not in OPTIONS[name]:
            raise MIAError(f"search.space.{key}: {name} has no option {option!r}; {suggest(option, OPTIONS[name])}")
    if missing := [option for option in OPTIONS[name] if option != "steps" and option not in options]:
        raise MIAError(f"search.space.{key}: {name} needs {' and '.join(missing)}")
    if name == "choice":
        return name, {"values": _checked_choice(key, options["values"])}
    numbers = {
        option: _number(key, option, value, whole=name == "int" or option == "steps")
        for option, value in options.items()
    }
    low, high = numbers["low"], numbers["high"]
    if low >= high:
        raise MIAError(f"search.space.{key}: low must be below high, got {low:g} and {high:g}")
    if name == "loguniform" and low <= 0:
        raise MIAError(f"search.space.{key}: low must be above 0 on a log scale, got {low:g}")
    if not 2 <= numbers.get("steps", 2) <= MOST_COMBINATIONS:
        raise MIAError(f"search.space.{key}: steps must be from 2 to {MOST_COMBINATIONS:,}, got {numbers['steps']:g}")
    return name, numbers


def _checked_choice(key: str, values: Any) -> list[Any]:
    if not isinstance(values, list) or not 0 < len(values) <= MOST_CHOICES:
        text = f"{len(values)} values" if isinstance(values, list) and values else repr(values)
        raise MIAError(f"search.space.{key}: values must be a list of 1 to {MOST_CHOICES} values, got {text}")
    return values


def _number(key: str, option: str, value: Any, *, whole: bool) -> float | int:
    try:
        number = float(value)  # YAML reads 1e-4, without a dot, as text
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if (
        isinstance(value, bool)
        or not math.isfinite(number)
        or (whole and (number != int(number) or abs(number) > 2**62))
    ):
        expected = "a whole number" if whole else "a number"
        raise MIAError(f"search.space.{key}: {option} must be {expected}, got {value!r}")
    return (value if isinstance(value, int) else int(number)) if whole else number


def rounded(value: float, low: float, high: float) -> float:
    """Return a number of few digits within a range."""
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def grid_points(distribution: Any, steps: int) -> list[float]:
    """Return the values of a range in a grid, on its scale."""
    import numpy as np

    space = np.geomspace if distribution.log else np.linspace
    points = space(distribution.low, distribution.high, steps).tolist()
    return [min(max(point, distribution.low), distribution.high) for point in points]
