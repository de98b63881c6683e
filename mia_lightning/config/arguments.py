"""Command lines: options by their dotted names, as nested values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from mia_lightning.config import renamed
from mia_lightning.config.files import parse_yaml
from mia_lightning.config.values import (
    group_of_entries,
    is_group,
    is_internal,
    option_types,
    plug_in_base,
    unknown_option,
)
from mia_lightning.errors import MIAError


@dataclass
class Arguments:
    """The parts of a command line."""

    files: list[str] = field(default_factory=list)
    """Values of --config, in order."""

    flags: set[str] = field(default_factory=set)
    """Names of the flags given, without dashes."""

    options: dict[str, Any] = field(default_factory=dict)
    """Nested values by option name."""

    appended: list[tuple[tuple[str, ...], Any]] = field(default_factory=list)
    """Values of `--OPTION+`, to be appended to a list, by path."""

    positional: list[str] = field(default_factory=list)

    help_of: tuple[str, str] | None = None
    """Option and class name of `--OPTION.help NAME`."""


def read_arguments(argv: Sequence[str], cls: type, *, flags: Sequence[str], positional: bool = False) -> Arguments:
    """Sort a command line into files, flags and options; values stay text except mappings, which are YAML.

    Args:
        argv: Without the program's name.
        cls: The dataclass whose fields are the options.
        flags: Names of options without a value.
        positional: Whether arguments without an option are allowed.

    Raises:
        MIAError: an unknown option, an option without its value, or an unexpected argument.
    """
    result = Arguments()
    remaining = list(argv)
    while remaining:
        token = remaining.pop(0)
        if token in ("-h", "--help"):
            result.flags.add("help")
        elif not token.startswith("--"):
            if not positional:
                given = token[:200]
                raise MIAError(f"unexpected argument {given!r}; options begin with --, such as --config {given}")
            result.positional.append(token)
        else:
            name, equals, value = token[2:].partition("=")
            _read_option(name, [value] if equals else None, remaining, cls, flags, positional, result)
    return result


def _read_option(
    name: str,
    values: list[str] | None,
    remaining: list[str],
    cls: type,
    flags: Sequence[str],
    positional: bool,
    result: Arguments,
) -> None:
    name = name.replace("-", "_") if name.replace("-", "_") in {*flags, *option_types(cls)} else name
    if name in flags:
        result.flags.add(name)
        return
    if name.endswith(".help"):
        given = remaining.pop(0) if remaining and not remaining[0].startswith("--") else ""
        result.help_of = (name.removesuffix(".help"), values[0] if values else given)
        return
    is_file = name == "config" and not positional
    legal = flags if positional else ("config", *flags)
    name = name if is_file else _current_name(name, cls, legal)
    path, hint = ((), str) if is_file else _locate(name.removesuffix("+"), cls, legal)
    is_list = not positional and any(get_origin(inner) in (list, tuple) for inner in (hint, *get_args(hint)))
    if values is None:
        values = []
        while remaining and not remaining[0].startswith("--") and (is_list or not values):
            values.append(remaining.pop(0))
    if not values and hint is bool:
        values = ["true"]
    if not values:
        raise MIAError(f"--{name} needs a value; see --help_all")
    if is_file:
        result.files.append(values[0])
        return
    parsed = _parse_plain(values[0], name) if hint is FREE else _parse(",".join(values) if is_list else values[0], name)
    if name.endswith("+"):
        result.appended.append((path, parsed))
    else:
        _assign(result.options, path, parsed)


def _current_name(name: str, cls: type, flags: Sequence[str]) -> str:
    """Return the present name of a former option of this command, else the name."""
    current = renamed.current_option(name.removesuffix("+").replace("-", "_"))
    groups = option_types(cls)
    former_is_legal = name in groups or (current or "").partition(".")[0] not in groups
    if current is None or former_is_legal or name.partition(".")[0] in flags:
        return name
    renamed.note(f"option --{name}", f"--{current}")
    return f"{current}+" if name.endswith("+") else current


FREE = object()
"""Type of an entry below an option whose values are not described: plain values as in YAML."""


def _parse_plain(text: str, name: str) -> Any:
    """Return the YAML value of a text; numbers such as 1e-3, which YAML takes for text, too."""
    value = parse_yaml(f"value: {text}", f"--{name}")["value"]
    try:
        return float(value) if isinstance(value, str) and value[-1:].isdigit() else value
    except ValueError:
        return value


def _locate(name: str, cls: type, flags: Sequence[str]) -> tuple[tuple[str, ...], Any]:
    """Return the path of an option in nested values, and its type (Any below a class)."""
    path: list[str] = []
    hint: Any = cls
    parts = name.split(".")
    while parts:
        part = parts.pop(0)
        if get_origin(hint) is dict and get_args(hint)[1] is Any:
            return (*path, part, *parts), FREE
        if (group := group_of_entries(hint)) is not None:
            path.append(part)
            hint = group
            continue
        if not is_group(hint):
            raise unknown_option(name, option_names(cls, flags))
        options = option_types(hint)
        part = part.replace("-", "_") if part not in options else part
        if part not in options:
            raise unknown_option(name, option_names(cls, flags))
        path.append(part)
        hint = options[part]
        if plug_in_base(hint) is not None and parts:
            if get_origin(hint) is dict:
                path.append(parts.pop(0))
            if parts:
                path += parts if parts[0] in ("class_path", "init_args") else ["init_args", *parts]
                return tuple(path), Any
            hint = Any
    return tuple(path), hint


def option_names(cls: type, flags: Sequence[str] = ()) -> list[str]:
    """Return every dotted option of a dataclass, options of classes aside, and the flags."""
    names = [*flags]

    def collect(group: type, prefix: str) -> None:
        for name, hint in option_types(group).items():
            if is_group(hint):
                collect(hint, f"{prefix}{name}.")
            elif not is_internal(hint):
                names.append(f"{prefix}{name}")

    collect(cls, "")
    return names


def _parse(text: str, name: str) -> Any:
    if text.lstrip().startswith("{"):
        return parse_yaml(text, f"--{name}")
    return None if text == "null" else text


def _assign(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *groups, last = path
    for group in groups:
        inner = values.get(group)
        if isinstance(inner, str):  # a class named before its options
            inner = {"class_path": inner}
        values[group] = values = inner if isinstance(inner, dict) else {}
    values[last] = value


def append(values: dict[str, Any], appended: list[tuple[tuple[str, ...], Any]]) -> None:
    """Append values of `--OPTION+` to the lists in complete nested values, in place."""
    for path, value in appended:
        current: Any = values
        for part in path:
            current = current.get(part) if isinstance(current, Mapping) else None
        given = value.strip("[]").split(",") if isinstance(value, str) else [value]
        _assign(values, path, [*(current or []), *(item.strip() for item in given)])
