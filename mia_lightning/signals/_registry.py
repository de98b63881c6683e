"""Signals by name: every marked function of a file in this package, or of the user's own."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from inspect import isfunction
from pkgutil import iter_modules
from types import ModuleType
from typing import cast

from mia_lightning.errors import MIAError, suggest
from mia_lightning.security.imports import import_own
from mia_lightning.signals.base import Signal
from mia_lightning.signals.presets import COURSE, STANDARD


def signal_names() -> list[str]:
    """Return the names of all signals of this package, sorted."""
    return sorted(_signals())


def get_signal(name: str) -> Signal:
    """Return a signal by its name, or by package.module:function.

    Raises:
        MIAError: unknown, or the function is not marked by `signal`.
    """
    if ":" in name:
        return _own_signal(name)
    known = _signals()
    if name not in known:
        raise MIAError(f"no signal is named {name!r}; {suggest(name, [*known, *_presets()])}")
    return known[name]


def preset(name: str) -> list[str]:
    """Return the signals of a preset: seed, standard or all.

    Raises:
        MIAError: unknown.
    """
    presets = _presets()
    if name not in presets:
        raise MIAError(f"no preset of signals is named {name!r}; {suggest(name, presets)}")
    return presets[name]


def is_preset(name: str) -> bool:
    """Return whether the name is that of a preset."""
    return name in _presets()


def expand_names(names: Iterable[str]) -> list[str]:
    """Return names of signals, each once and in order, with those of presets in the presets' place.

    Raises:
        MIAError: a name that is neither a signal nor a preset.
    """
    expanded = [signal for name in names for signal in (preset(name) if is_preset(name) else [name])]
    for name in expanded:
        get_signal(name)
    return list(dict.fromkeys(expanded))


def _presets() -> dict[str, list[str]]:
    return {"course": list(COURSE), "standard": list(STANDARD), "all": signal_names()}


def _signals() -> dict[str, Signal]:
    package = import_module("mia_lightning.signals")
    found: dict[str, Signal] = {}
    for info in iter_modules(package.__path__):
        if not info.name.startswith("_"):
            for name, function in _marked(import_module(f"{package.__name__}.{info.name}")):
                if name in found:
                    raise MIAError(f"two signals are named {name!r}, one in signals/{info.name}.py; rename one")
                found[name] = function
    return found


def _marked(module: ModuleType) -> Iterator[tuple[str, Signal]]:
    for name, value in vars(module).items():
        at_home = (
            getattr(value, "__module__", None) == module.__name__
        )  # one that another file imports is not found twice
        if at_home and isfunction(value) and hasattr(value, "per_query"):
            yield name, cast(Signal, value)


def _own_signal(name: str) -> Signal:
    path, _, attribute = name.partition(":")
    try:
        function = getattr(import_own(path), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise MIAError(f"cannot load the signal {name!r}: {error}; expected package.module:function") from error
    if not callable(function) or not hasattr(function, "per_query"):
        raise MIAError(f"{name!r} is not a signal; mark the function with @mia_lightning.signals.signal(...)")
    return cast(Signal, function)
