"""Registry of signals: every marked function of a module in this package, or of a user's module."""

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
        MIAError: unknown, or the function is marked by neither `signal` nor `logit_signal`.
    """
    if ":" in name:
        return _own_signal(name)
    signals = _signals()
    if name not in signals:
        raise MIAError(f"no signal is named {name!r}; {suggest(name, [*signals, *_presets()])}")
    return signals[name]


def find_signal(name: str) -> Signal | None:
    """Return a signal by its name, None for a column of a reference score or of one view."""
    try:
        return get_signal(name)
    except MIAError:
        return None


def preset(name: str) -> list[str]:
    """Return the signals of a preset: course, standard or all.

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
    """Return names of signals, each once and in order, with each preset replaced by its signals.

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
    signals: dict[str, Signal] = {}
    for info in iter_modules(package.__path__):
        if not info.name.startswith("_"):
            for name, function in _marked(import_module(f"{package.__name__}.{info.name}")):
                if name in signals:
                    raise MIAError(f"two signals are named {name!r}, one in signals/{info.name}.py; rename one")
                signals[name] = function
    return signals


def _marked(module: ModuleType) -> Iterator[tuple[str, Signal]]:
    for name, value in vars(module).items():
        is_imported = getattr(value, "__module__", None) != module.__name__  # by this module, from where it is defined
        if isfunction(value) and not is_imported and (signal := _as_signal(value)) is not None:
            yield name, signal


def _as_signal(function: object) -> Signal | None:
    """Return a marked function itself, or the signal derived from a marked formula; None for others."""
    function = getattr(function, "signal", function)
    return cast(Signal, function) if callable(function) and hasattr(function, "per_query") else None


def _own_signal(name: str) -> Signal:
    path, _, attribute = name.partition(":")
    try:
        function = getattr(import_own(path), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise MIAError(f"cannot load the signal {name!r}: {error}; expected package.module:function") from error
    signal = _as_signal(function)
    if signal is None:
        raise MIAError(
            f"{name!r} is not a signal; mark the function with @signal(...) or @logit_signal(...) of "
            "mia_lightning.signals"
        )
    return signal
