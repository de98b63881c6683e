"""Search spaces: fields of the run configuration and the distributions of their values, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from mia_lightning.config.command_line import parse_mapping
from mia_lightning.config.files import to_mapping
from mia_lightning.config.schema import DataConfig, RunConfig, TargetConfig
from mia_lightning.errors import MIAError, suggest

Params = dict[str, Any]
"""Dotted field to plain value."""

DIGITS = 4
"""Significant digits of a drawn number: enough for any rate, and few enough to be read."""


@dataclass(frozen=True)
class Uniform:
    """Any number between two."""

    low: float
    high: float
    steps: int = 5
    """Points of a grid."""

    def at(self, share: float) -> float:
        """Return the number at a share in [0, 1] of the way from low to high."""
        return rounded(self.low + share * (self.high - self.low), self.low, self.high)

    def grid(self) -> list[Any]:
        """Return the points of a grid."""
        return [self.at(share) for share in np.linspace(0, 1, self.steps)]


@dataclass(frozen=True)
class LogUniform(Uniform):
    """Any number above 0 between two, each order of magnitude as likely as the next."""

    def at(self, share: float) -> float:
        """Return the number at a share in [0, 1] of the way from low to high, on the log scale."""
        return rounded(self.low * (self.high / self.low) ** share, self.low, self.high)


@dataclass(frozen=True)
class IntRange:
    """A whole number from low to high, both included."""

    low: int
    high: int

    def at(self, share: float) -> int:
        """Return the number at a share in [0, 1] of the way."""
        return min(self.low + int(share * (self.high - self.low + 1)), self.high)

    def grid(self) -> list[Any]:
        """Return all of them."""
        return list(range(self.low, self.high + 1))


@dataclass(frozen=True)
class Choice:
    """One of some values of any type."""

    values: Sequence[Any]

    def at(self, share: float) -> Any:
        """Return the value at a share in [0, 1] of the way."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def grid(self) -> list[Any]:
        """Return all of them."""
        return list(self.values)


Distribution = Uniform | IntRange | Choice

DISTRIBUTIONS: dict[str, type[Any]] = {"uniform": Uniform, "loguniform": LogUniform, "int": IntRange, "choice": Choice}


class Space:
    """The fields that a search changes, checked against the run whose fields they are.

    Args:
        config: The run.
        described: Dotted field to the plain description of its distribution.
        roots: The parts of the configuration that may be searched.

    Raises:
        MIAError: an empty space, an unknown field (with the closest name), a distribution that is none, or a value that
            the field does not take.
    """

    def __init__(self, config: RunConfig, described: Mapping[str, Mapping[str, Any]], *, roots: Sequence[str]) -> None:
        if not described:
            raise MIAError("search.space is empty; name at least one field of the run and its distribution")
        self.config = config
        self.fields: dict[str, Distribution] = {}
        self._typed: dict[str, list[Any]] = {}
        for name, description in described.items():
            key = _resolved(config, name, roots)
            self.fields[key] = distribution(name, description)
        ends = {key: _ends(values) for key, values in self.fields.items()}
        self._typed = {key: [] for key in ends}
        for number in range(max(map(len, ends.values()))):  # a parse is slow, so one serves all fields
            params = {key: values[number] for key, values in ends.items() if number < len(values)}
            for key, value in _typed(config, params).items():
                self._typed[key].append(value)

    def draw(self, seed: int, number: int) -> Params:
        """Return the parameters of one trial; they depend on the seed and the trial's number alone."""
        shares = np.random.default_rng((seed, number)).random(len(self.fields))
        return {key: values.at(float(share)) for (key, values), share in zip(self.fields.items(), shares, strict=True)}

    def grid(self) -> list[Params]:
        """Return every combination."""
        grids = [values.grid() for values in self.fields.values()]
        return [dict(zip(self.fields, combination, strict=True)) for combination in product(*grids)]

    def apply(self, params: Params) -> RunConfig:
        """Return the run with these parameters.

        Raises:
            ValueError: a combination that a component refuses.
        """
        config: Any = self.config
        for key, value in params.items():
            values, typed = self.fields[key], self._typed[key]
            new = typed[list(values.values).index(value)] if isinstance(values, Choice) else type(typed[0])(value)
            config = _replaced(config, key.split("."), new)
        checked: RunConfig = config
        return checked

    def bare(self) -> Space:
        """Return the same space over a run that names neither records nor target: what trials get."""
        same = copy(self)
        same.config = replace(self.config, data=DataConfig(), target=TargetConfig(), output="")
        return same

    def values(self, key: str) -> list[Any]:
        """Return the values that a field of choices can have; empty where it is not searched."""
        return list(self._typed.get(key, ()))


def distribution(name: str, description: Mapping[str, Any]) -> Distribution:
    """Return the distribution that plain data describes.

    Raises:
        MIAError: an unknown kind or option, a missing one, a value of the wrong type, or low above high.
    """
    options = dict(description)
    if "dist" not in options:
        raise MIAError(
            f"search.space.{name}: no dist is given; write {{dist: uniform, low: 0, high: 1}} or another of "
            f"{', '.join(sorted(DISTRIBUTIONS))}"
        )
    kind = options.pop("dist")
    if kind not in DISTRIBUTIONS:
        raise MIAError(f"search.space.{name}: no distribution is named {kind!r}; {suggest(str(kind), DISTRIBUTIONS)}")
    legal = {f.name: f for f in fields(DISTRIBUTIONS[kind])}
    for option in options:
        if option not in legal:
            raise MIAError(f"search.space.{name}: {kind} has no option {option!r}; {suggest(option, legal)}")
    if missing := [option for option, f in legal.items() if f.default is MISSING and option not in options]:
        raise MIAError(f"search.space.{name}: {kind} needs {' and '.join(missing)}")
    if kind == "choice":
        return _choice(name, options["values"])
    numbers = {
        option: _number(name, option, value, whole=kind == "int" or option == "steps")
        for option, value in options.items()
    }
    low, high = numbers["low"], numbers["high"]
    if low >= high:
        raise MIAError(f"search.space.{name}: low must be below high, got {low:g} and {high:g}")
    if kind == "loguniform" and low <= 0:
        raise MIAError(f"search.space.{name}: low must be above 0 on a log scale, got {low:g}")
    if numbers.get("steps", 2) < 2:
        raise MIAError(f"search.space.{name}: steps must be at least 2, got {numbers['steps']:g}")
    found: Distribution = DISTRIBUTIONS[kind](**numbers)
    return found


def _choice(name: str, values: Any) -> Choice:
    if not isinstance(values, list) or not values:
        raise MIAError(f"search.space.{name}: values must be a list of at least one value, got {values!r}")
    return Choice(tuple(values))


def _number(name: str, option: str, value: Any, *, whole: bool) -> float | int:
    try:
        number = float(value)  # YAML takes 1e-4, without a dot, for text
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or (whole and number != int(number)):
        kind = "a whole number" if whole else "a number"
        raise MIAError(f"search.space.{name}: {option} must be {kind}, got {value!r}")
    return int(number) if whole else number


def rounded(value: float, low: float, high: float) -> float:
    """Return a number of few digits within a range."""
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def _ends(values: Distribution) -> list[Any]:
    return list(values.values) if isinstance(values, Choice) else [values.at(0), values.at(1), values.at(0.37)]


def _resolved(config: RunConfig, name: str, roots: Sequence[str]) -> str:
    """Return a dotted field without the words class_path and init_args, after looking that it is there."""
    node: Any = config
    parts = [part for part in str(name).split(".") if part != "init_args"]
    for depth, part in enumerate(parts):
        legal = list(node) if isinstance(node, dict) else _options(node)
        if part not in legal:
            whole = ".".join(parts[: depth + 1])
            above = f"{'.'.join(parts[:depth])} has no such field" if depth else "no field of a run"
            hint = suggest(part, legal) if legal else "it is a single value"
            raise MIAError(f"search.space names {name!r}, but {whole!r} is unknown ({above}); {hint}")
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    key = ".".join(parts)
    if not any(key.startswith(f"{root}.") for root in roots):
        raise MIAError(
            f"search.space names {name!r}, which a trial cannot change; what can be searched begins with "
            f"{', '.join(roots)}"
        )
    return key


def _options(node: Any) -> list[str]:
    if not is_dataclass(node) or isinstance(node, type):
        return []
    return [f.name for f in fields(node) if f.init]


def _typed(config: RunConfig, params: Params) -> Params:
    """Return values as the configuration parser makes them of plain data.

    Raises:
        MIAError: a field does not take its value.
    """
    try:
        return _parsed(config, params)
    except MIAError as error:
        if len(params) == 1:
            ((key, value),) = params.items()
            raise MIAError(f"search.space.{key} cannot be {value!r}: {error}") from error
        alone = [_typed(config, {key: value}) for key, value in params.items()]  # says whose fault it is
        return {key: value for found in alone for key, value in found.items()}


def _parsed(config: RunConfig, params: Params) -> Params:
    mapping = to_mapping(config)
    for key, value in params.items():
        node = mapping
        *above, last = key.split(".")
        for part in above:
            node = node[part]
            node = node.get("init_args", node) if "class_path" in node else node
        node[last] = value
    found = parse_mapping(mapping)
    return {key: _at(found, key) for key in params}


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


def _replaced(node: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if isinstance(node, dict):
        return {**node, head: _replaced(node[head], rest, value)}
    return replace(node, **{head: _replaced(getattr(node, head), rest, value)})
