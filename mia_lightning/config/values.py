"""Option values: names, types, lists and finite numbers, checked with messages in the words of the command line."""

import re
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import get_annotations
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mia_lightning.config import renamed
from mia_lightning.config.class_paths import PLUG_IN_BASES, resolve
from mia_lightning.config.files import parse_yaml
from mia_lightning.config.scalars import SCALARS, shown, text_value
from mia_lightning.errors import MIAError, suggest

MOST_ENTRIES = 1000
"""Limit of lists and mappings."""

_EXAMPLES = {float: "[0.49, 0.48, 0.45]", int: "[64, 32]", str: "[phi, loss]"}


def check_values(values: Mapping[str, Any], cls: type, *, prefix: str = "") -> dict[str, Any]:
    """Return nested option values of a dataclass with every value in the type of its field.

    Lists may be given as text, `0.49, 0.48` or `[0.49, 0.48]`; numbers too. Keys that are absent stay absent.

    Args:
        values: Nested values, from files or a command line.
        cls: The dataclass.
        prefix: Of option names in messages, with its dot.

    Raises:
        MIAError: an unknown or former name (with the closest or present one), or a value of the wrong type, not
            finite or out of range.
    """
    types_ = option_types(cls)
    checked = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in types_:
            raise unknown_option(name, [f"{prefix}{legal}" for legal in types_])
        checked[key] = _convert(value, types_[key], name)
    return checked


@cache
def option_types(cls: type) -> dict[str, Any]:
    """Return the types of a dataclass' fields by name, in their order."""
    hints: dict[str, Any] = {}
    for f in fields(cls):
        if f.init:  # other fields may have types that are imported for type checking only
            owner = next(base for base in cls.__mro__ if f.name in get_annotations(base))
            alone = type(owner.__name__, (), {"__annotations__": {f.name: f.type}, "__module__": owner.__module__})
            hints[f.name] = get_type_hints(alone)[f.name]
    return hints


def is_group(hint: Any) -> bool:
    """Return whether an option is a group of options."""
    return isinstance(hint, type) and is_dataclass(hint) and hint not in PLUG_IN_BASES


def is_internal(hint: Any) -> bool:
    """Return whether an option is an optional group, which this package's own files set, and not a user."""
    return group_of_entries(hint) is None and any(is_group(inner) for inner in get_args(hint))


def group_of_entries(hint: Any) -> type | None:
    """Return the group that each entry of a mapping from names to groups has, else None."""
    inner = get_args(hint)[1] if get_origin(hint) is dict else None
    return inner if is_group(inner) else None


def plug_in_base(hint: Any) -> type | None:
    """Return the plug-in base of an option that names one class, or a mapping from names to classes, else None."""
    inner = get_args(hint)[1] if get_origin(hint) is dict else hint
    return inner if isinstance(inner, type) and inner in PLUG_IN_BASES else None


def unknown_option(name: str, legal: list[str]) -> MIAError:
    """Return the error about an option that does not exist."""
    if sentence := renamed.removal(name):
        return MIAError(f"unknown option --{name}: {sentence}")
    return MIAError(f"unknown option --{name}; {suggest(name, legal, see='--help_all')}")


def _convert(value: Any, hint: Any, name: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _of_union(value, arguments, name)
    if origin is Literal:
        return _of_choices(value, arguments, name)
    if origin in (list, tuple):
        return _of_list(value, origin, arguments, name)
    if origin is dict:
        return _of_mapping(value, arguments[1], name)
    if hint in PLUG_IN_BASES:
        return _of_class(value, hint, name)
    if is_group(hint):
        if isinstance(value, Mapping):
            return check_values(value, hint, prefix=f"{name}.")
        first = next(iter(option_types(hint)))
        raise MIAError(f"{name} must be a mapping of options, such as --{name}.{first}; got {shown(value)}")
    scalar = SCALARS.get(hint)
    if scalar is not text_value:
        return value if scalar is None else scalar(value, name)
    text = text_value(value, name)
    if re.sub(r"^references\.sets\.[^.]+", "references", name) in _IMPORTS:
        _check_import(text, name)
    return text


def _of_union(value: Any, arguments: tuple[Any, ...], name: str) -> Any:
    if type(None) in arguments and (value is None or (isinstance(value, str) and value.lower() in ("null", "none"))):
        return None
    inner = [argument for argument in arguments if argument is not type(None)]
    for hint in inner[:-1]:
        try:
            return _convert(value, hint, name)
        except MIAError:
            continue
    return _convert(value, inner[-1], name)


def _of_choices(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    for choice in choices:
        if (value == choice and type(value) is type(choice)) or str(value) == str(choice):
            return choice
    if current := renamed.VALUES.get(name, {}).get(str(value)):
        renamed.note(f"--{name} {value}", current)
        return current
    raise MIAError(f"--{name}: expected one of {', '.join(map(str, choices))}, got {shown(value)}")


def _of_list(value: Any, origin: type, arguments: tuple[Any, ...], name: str) -> list[Any] | tuple[Any, ...]:
    if isinstance(value, str):
        value = _split(value.strip())
    elif isinstance(value, int | float):
        value = [value]
    fixed = origin is tuple and arguments[-1] is not Ellipsis
    if not isinstance(value, list | tuple) or (fixed and len(value) != len(arguments)):
        count = f"{len(arguments)} values" if fixed else "a list"
        raise MIAError(
            f"--{name}: expected {count} such as {_EXAMPLES.get(arguments[0], '[a, b]')}, got {shown(value)}"
        )
    if len(value) > MOST_ENTRIES:
        raise MIAError(f"--{name}: {len(value):,} values; at most {MOST_ENTRIES:,} are allowed")
    hints = arguments if fixed else arguments[:1] * len(value)
    try:
        converted = [_convert(item, hint, name) for item, hint in zip(value, hints, strict=True)]
    except MIAError as error:
        raise MIAError(f"{error} in a list such as {_EXAMPLES.get(arguments[0], '[a, b]')}") from error
    if name == "signals.names":
        converted = [_current_signal(signal) for signal in converted]
    return tuple(converted) if origin is tuple else converted


def _split(text: str) -> list[Any]:
    """Return the entries of a list in text: YAML in brackets, or separated by commas."""
    if text.startswith("[") and text.endswith("]"):
        try:
            return list(parse_yaml(f"list: {text}", "the list")["list"])
        except (MIAError, TypeError):
            text = text[1:-1]
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    return [part.strip().strip("'\"") for part in text.split(",") if part.strip()]


def _of_mapping(value: Any, inner: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MIAError(f"{name} must be a mapping from names to values; got {shown(value)}")
    if len(value) > MOST_ENTRIES:
        raise MIAError(f"{name} has {len(value):,} entries; at most {MOST_ENTRIES:,} are allowed")
    for key in value:
        text_value(key, f"{name}")
    return {key: None if item is None else _convert(item, inner, f"{name}.{key}") for key, item in value.items()}


def _of_class(value: Any, base: type, name: str) -> dict[str, Any]:
    """Return a class with its options as {class_path, init_args}; options may also stand next to class_path."""
    if isinstance(value, str):
        value = {"class_path": value}
    if not isinstance(value, Mapping) or "class_path" not in value:
        raise MIAError(
            f"--{name}: expected a class_path with init_args, such as --{name} {_example(base)}; see --help_all"
        )
    given = value.get("init_args") or {}
    if not isinstance(given, Mapping):
        raise MIAError(f"--{name}: init_args must be a mapping of options, got {shown(given)}")
    given = {**given, **{key: inner for key, inner in value.items() if key not in ("class_path", "init_args")}}
    cls = resolve(value["class_path"], base, name)
    legal = option_types(cls)
    given = {_current_field(key, cls): inner for key, inner in given.items()}  # of two spellings the later one counts
    for key in given:
        if key not in legal:
            raise MIAError(f"--{name}: {cls.__name__} has no option {key!r}; {suggest(key, legal, see='--help_all')}")
    arguments = check_values(given, cls, prefix=f"{name}.")
    if isinstance(arguments.get("column"), str):
        arguments["column"] = _current_signal(arguments["column"])
    if isinstance(arguments.get("columns"), list):
        arguments["columns"] = [_current_signal(column) for column in arguments["columns"]]
    try:
        cls(**arguments)
    except (ValueError, TypeError) as error:
        raise MIAError(f"--{name}: {error}") from error
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def _current_field(key: str, cls: type) -> str:
    current = renamed.FIELDS.get(cls.__name__, {}).get(key)
    if current is None:
        return key
    renamed.note(f"option {key!r} of {cls.__name__}", repr(current))
    return current


def _current_signal(name: str) -> str:
    current = renamed.SIGNALS.get(name)
    if current is None:
        return name
    renamed.note(f"signal {name!r}", repr(current))
    return current


def _example(base: type) -> str:
    return {"Attack": "MLP", "Calibrator": "Platt", "ReferenceScore": "LiRA"}.get(base.__name__, "CLASS")


_IMPORTS = (
    *("target.architecture", "references.architecture", "references.training.transform"),
    *("data.transform", "signals.names"),
)
"""Options that may hold package.module:NAME."""


def _check_import(text: str, name: str) -> None:
    """Refuse an import that is not written as package.module:NAME.

    Raises:
        MIAError: with the right form.
    """
    module, colon, attribute = text.rpartition(":")
    if not colon:
        module, _, attribute = text.rpartition(".")
    plain = module.removeprefix("./").removesuffix(".py").replace("/", ".")
    if not attribute.isidentifier() or not plain or (colon and plain == module):
        return
    if all(part.isidentifier() for part in plain.split(".")):
        raise MIAError(
            f"--{name}: {text!r} must be written as package.module:NAME; did you mean '{plain}:{attribute}'?"
        )
