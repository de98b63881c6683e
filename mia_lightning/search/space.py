"""Search space: fields of the run configuration and Optuna's distributions of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from mia_lightning.config.command_line import parse_mapping
from mia_lightning.config.files import to_mapping
from mia_lightning.config.schema import DataConfig, RunConfig, TargetConfig
from mia_lightning.errors import MIAError, suggest
from mia_lightning.search.distributions import MOST_COMBINATIONS, checked_distribution, grid_points, rounded
from mia_lightning.search.trial import Params

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


FREE = ("references.training.init_args", "references.trainer")
"""Fields that hold any entries."""


class Space:
    """The fields that a search changes, checked against the run whose fields they are.

    Args:
        config: The run.
        described: Dotted field to the plain description of its distribution.
        roots: Parts of the configuration that may be searched.

    Raises:
        MIAError: an empty space, an unknown field (with the closest name), an invalid distribution, or a value that
            the field does not accept.
    """

    def __init__(self, config: RunConfig, described: Mapping[str, Mapping[str, Any]], *, roots: Sequence[str]) -> None:
        if not described:
            raise MIAError("search.space is empty; name at least one field of the run and its distribution")
        self.config = config
        self.choices: dict[str, list[Any]] = {}
        """Plain values of each field with a choice."""
        self.distributions: dict[str, BaseDistribution] = {}
        self._steps: dict[str, int] = {}
        for name, description in described.items():
            self._add(_resolve(config, name, roots), description)
        points = {key: self._points(key) for key in self.distributions}
        self._typed: dict[str, list[Any]] = {key: [] for key in points}
        for index in range(max(map(len, points.values()))):  # parsing is slow, so one call serves all fields
            plain = {key: values[index] for key, values in points.items() if index < len(values)}
            for key, value in _parse_fields(config, plain).items():
                self._typed[key].append(value)

    def _add(self, key: str, description: Mapping[str, Any]) -> None:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        name, options = checked_distribution(key, description)
        if name == "choice":  # Optuna stores no lists, so it samples indices
            self.choices[key] = options["values"]
            self.distributions[key] = CategoricalDistribution(range(len(options["values"])))
        elif name == "int":
            self.distributions[key] = IntDistribution(options["low"], options["high"])
        else:
            self.distributions[key] = FloatDistribution(options["low"], options["high"], log=name == "loguniform")
            self._steps[key] = options.get("steps", 5)

    def _points(self, key: str) -> list[Any]:
        """Return the plain values that are parsed: all of a choice, or three of a range."""
        if key in self.choices:
            return self.choices[key]
        low, high = self.distributions[key].low, self.distributions[key].high  # type: ignore[attr-defined]
        middle = (low + high) // 2 if isinstance(low, int) else rounded(low + 0.37 * (high - low), low, high)
        return [low, high, middle]

    def grid(self) -> dict[str, list[Any]]:
        """Return the values of each field of a grid, as Optuna holds them.

        Raises:
            MIAError: more than 10,000 combinations; none is enumerated before.
        """
        from optuna.distributions import CategoricalDistribution, IntDistribution

        values: dict[str, Sequence[Any]] = {}
        for key, distribution in self.distributions.items():
            if isinstance(distribution, CategoricalDistribution):
                values[key] = range(len(self.choices[key]))
            elif isinstance(distribution, IntDistribution):
                values[key] = range(distribution.low, distribution.high + 1)
            else:
                values[key] = grid_points(distribution, self._steps[key])
        count = 1
        for options in values.values():
            count *= options.stop - options.start if isinstance(options, range) else len(options)
        if count > MOST_COMBINATIONS:
            raise MIAError(
                f"the grid of search.space has {count:,} combinations, over {MOST_COMBINATIONS:,}; write dist: choice "
                "with fewer values, or use --search.algorithm random"
            )
        return {key: list(options) for key, options in values.items()}

    def largest(self, ending: str) -> list[int]:
        """Return the highest value of each range or choice whose field has this last name."""
        keys = [key for key in self.distributions if key.rsplit(".", 1)[-1] == ending]
        return [int(max(self.choices.get(key) or [self.distributions[key].high])) for key in keys]  # type: ignore[attr-defined]

    def values(self, params: Params) -> Params:
        """Return plain values of Optuna's parameters: choices by index, numbers of few digits.

        Raises:
            ValueError: a field that is missing or unknown, or a value outside its distribution.
        """
        if params and params.keys() != self.distributions.keys():
            raise ValueError("other fields than those of search.space")
        return {key: self._value(key, params[key]) for key in self.distributions if params}

    def _value(self, key: str, value: Any) -> Any:
        whole = key in self.choices or isinstance(self._typed[key][0], int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise ValueError(f"{key} cannot be {value!r}")
        if key in self.choices:
            if not 0 <= value < len(self.choices[key]):
                raise ValueError(f"{key} has no choice {value}")
            return self.choices[key][value]
        low, high = self.distributions[key].low, self.distributions[key].high  # type: ignore[attr-defined]
        if not low <= value <= high:
            raise ValueError(f"{key} cannot be {value!r}")
        return value if isinstance(low, int) else rounded(value, low, high)

    def apply(self, params: Params) -> RunConfig:
        """Return the run with these parameters.

        Raises:
            ValueError: a combination that a component refuses.
        """
        config: Any = self.config
        for key, value in self.values(params).items():
            typed = self._typed[key]
            new = typed[params[key]] if key in self.choices else type(typed[0])(value)
            config = _replaced(config, key.split("."), new)
        checked: RunConfig = config
        return checked

    def without_paths(self) -> Space:
        """Return the same space over a run that names neither records nor target: what trials receive."""
        space = copy(self)
        space.config = replace(self.config, data=DataConfig(), target=TargetConfig(), output="")
        return space

    def typed_choices(self, key: str) -> list[Any]:
        """Return the values of a choice as the configuration holds them; empty where the field is not searched."""
        return self._typed[key] if key in self.choices else []


def _resolve(config: RunConfig, name: str, roots: Sequence[str]) -> str:
    """Return a dotted field without the init_args of plug-ins, after a check that the run has it."""
    node: Any = config
    parts = str(name).split(".")
    is_free = any(str(name).startswith(f"{free}.") for free in FREE)
    parts = parts if is_free else [part for part in parts if part != "init_args"]
    for depth, part in enumerate(parts):
        legal = list(node) if isinstance(node, dict) else _options(node)
        if is_free and isinstance(node, dict) and depth > 1:  # checked where they are used
            node = node.get(part, {})
            continue
        if part not in legal:
            path = ".".join(parts[: depth + 1])
            above = f"{'.'.join(parts[:depth])} has no such field" if depth else "not a field of a run"
            hint = suggest(part, legal) if legal else "it is a single value"
            raise MIAError(f"search.space names {name!r}, but {path!r} is unknown ({above}); {hint}")
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    key = ".".join(parts)
    if not any(key.startswith(f"{root}.") for root in roots):
        raise MIAError(f"search.space names {name!r}, which a trial cannot change; use fields of {', '.join(roots)}")
    return key


def _options(node: Any) -> list[str]:
    return [f.name for f in fields(node) if f.init] if is_dataclass(node) and not isinstance(node, type) else []


def _parse_fields(config: RunConfig, plain: Params) -> Params:
    """Return plain values as the configuration parser types them.

    Raises:
        MIAError: a field does not accept its value.
    """
    mapping = to_mapping(config)
    for key, value in plain.items():
        node = mapping
        *above, last = key.split(".")
        for part, following in zip(above, [*above[1:], last], strict=True):
            node = node.setdefault(part, {})
            if "class_path" in node and following not in node:
                node = node.get("init_args", node)
        node[last] = value
    try:
        parsed: Any = parse_mapping(mapping)
    except MIAError as error:
        if len(plain) == 1:
            ((key, value),) = plain.items()
            raise MIAError(f"search.space.{key} cannot be {value!r}: {error}") from error
        single = [_parse_fields(config, {key: value}) for key, value in plain.items()]  # finds the field at fault
        return {key: value for part in single for key, value in part.items()}
    typed = {}
    for key in plain:
        node = parsed
        for part in key.split("."):
            node = node[part] if isinstance(node, dict) else getattr(node, part)
        typed[key] = node
    return typed


def _replaced(node: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if isinstance(node, dict):
        return {**node, head: _replaced(node.get(head, {}), rest, value)}
    return replace(node, **{head: _replaced(getattr(node, head), rest, value)})
