"""Help texts: common options on one screen, all options, and the options of configured classes."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from docstring_parser import parse_from_object

from mia_lightning.config.arguments import option_names
from mia_lightning.config.class_paths import PLUG_IN_BASES, components, resolve
from mia_lightning.config.files import class_path, to_mapping
from mia_lightning.config.invocation import command as typed
from mia_lightning.config.values import is_group, is_internal, option_types, plug_in_base, unknown_option

__all__ = ["Command", "class_help", "component_help", "components", "full_help", "short_help"]


@dataclass(frozen=True)
class Command:
    """A command of the package, as its help describes it."""

    words: str
    """Name of the command, and its action where it has several, such as "canaries make"."""

    summary: str
    cls: type
    """Dataclass of its options."""

    common: tuple[str, ...]
    """Options of the short help, in order."""

    flags: dict[str, str]
    """Options without a value, and their help."""

    examples: str
    """Lines with {name} and {train} where commands are typed."""

    index: str = ""
    """Prefix of the options whose names the short help lists without explanation."""

    positional: str = ""
    """Help of the arguments without an option, empty where there are none."""

    @property
    def name(self) -> str:
        """The command as it is typed."""
        name, _, action = self.words.partition(" ")
        return f"{typed(name)} {action}".rstrip()

    @property
    def typed_examples(self) -> str:
        """The examples as they are typed."""
        return "examples:\n" + self.examples.format(name=self.name, train=typed("train"))


def short_help(command: Command) -> str:
    """Return the common options with an explanation each, and the names of all others; under 60 lines."""
    rows = [("--config NAME|FILE", CONFIG_HELP)] if "list_configs" in command.flags else []
    rows += [(_usage(command.cls, name), _first_sentence(_text_of(command.cls, name))) for name in command.common]
    rows += [(f"--{name}", text) for name, text in command.flags.items()]
    listed = {*command.common, *command.flags, "config"}
    names = [name for name in option_names(command.cls) if name.startswith(command.index) and name not in listed]
    remaining = " ".join(f"--{name}" for name in names if not (name == "scores" and command.positional))
    parts = [_usage_line(command), textwrap.fill(command.summary, _width()), _table(rows)]
    if remaining:
        index = textwrap.fill(remaining, _width(), break_on_hyphens=False)
        also = f" (and all of {typed('train')})" if command.index else ""
        parts.append(f"further options{also}, explained by --help_all:\n{index}")
    return "\n\n".join([*parts, command.typed_examples]).rstrip()


CONFIG_HELP = "Shipped configuration or YAML file; later ones override earlier ones."


def full_help(command: Command) -> str:
    """Return every option with type, default and explanation, and the options of all configurable classes."""
    parts = [_usage_line(command), textwrap.fill(command.summary, _width())]
    general = [("--config NAME|FILE", CONFIG_HELP)] if "list_configs" in command.flags else []
    general += [(f"--{name}", text) for name, text in command.flags.items()]
    if command.positional:
        general.insert(0, (command.positional.partition(":")[0], command.positional.partition(": ")[2]))
    parts.append("general:\n" + _table(general))
    parts += _group_tables(command.cls, "", "run", _defaults(command.cls))
    parts.append(command.typed_examples)
    if any(plug_in_base(hint) is not None for hint in option_types(command.cls).values()):
        parts.append(component_help())
    return "\n\n".join(parts).rstrip()


def class_help(option: str, name: str) -> str:
    """Return the options of one configurable class, or all classes of an option where no name is given.

    Args:
        option: Such as `attacks` or `references.scores`.
        name: Of the class, or "".

    Raises:
        MIAError: the option takes no class, or there is no such class.
    """
    for base, shown in PLUG_IN_BASES.items():
        if shown.removeprefix("--").removesuffix(".NAME") == option:
            if name:
                return _describe(resolve(name, base, option), _width())
            return "\n".join(f"{class_path(c)}: {parse_from_object(c).short_description}" for c in components(base))
    helps = [f"{shown.removeprefix('--').removesuffix('.NAME')}.help" for shown in PLUG_IN_BASES.values()]
    raise unknown_option(f"{option}.help", helps)


def component_help() -> str:
    """Return the options of every attack, calibrator and reference score."""
    parts = []
    for base, option in PLUG_IN_BASES.items():
        parts.append(f"classes for {option} (class_path), and their options (init_args):")
        parts += [_describe(component, _width()) for component in components(base)]
    return "\n".join(parts)


def _usage_line(command: Command) -> str:
    positional = f" {command.positional.partition(':')[0]}" if command.positional else ""
    rest = f"{positional} [--OPTION VALUE ...]"
    line = f"usage: {command.name}{rest}"
    return line if len(line) <= _width() else f"usage: {command.name} \\\n      {rest}"


def _group_tables(group: type, prefix: str, title: str, values: Any) -> Iterator[str]:
    """Yield one table of options for a group, then those of the groups in it.

    Args:
        group: The dataclass.
        prefix: Of its options, with its dot.
        title: Above its table.
        values: Its defaults as plain nested values.
    """
    texts, hints = _field_docs(group), option_types(group)
    rows = [
        (f"--{prefix}{name} {_type_name(hint)}", _with_default(texts.get(name, ""), values[name]))
        for name, hint in hints.items()
        if not is_group(hint) and not is_internal(hint)
    ]
    if rows:
        yield f"{title}:\n{_table(rows)}"
    for name, hint in hints.items():
        if is_group(hint):
            description = (parse_from_object(hint).short_description or name).rstrip(".")
            yield from _group_tables(hint, f"{prefix}{name}.", description, values[name])


def _defaults(cls: type) -> dict[str, Any]:
    """Return the plain defaults of a dataclass, which by themselves may not be a valid configuration."""
    values = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(cls) if f.init}
    return {name: to_mapping(value) for name, value in values.items()}


def _with_default(text: str, value: Any) -> str:
    if "default:" in text or value is None or value in ({}, [], ""):
        return text
    if isinstance(value, dict):
        value = value.get("class_path", ", ".join(value))
    elif isinstance(value, list):
        value = ", ".join(map(str, value))
    elif isinstance(value, bool):
        value = str(value).lower()
    return f"{text.rstrip('.')} (default: {value})."


def _usage(cls: type, name: str) -> str:
    hint: Any = cls
    for part in name.split("."):
        hint = option_types(hint)[part]
    return f"--{name} {_type_name(hint)}"


def _text_of(cls: type, name: str) -> str:
    *groups, last = name.split(".")
    for part in groups:
        cls = option_types(cls)[part]
    return _field_docs(cls).get(last, "")


def _first_sentence(text: str) -> str:
    text = re.sub(r" ?\(default: [^()]*\)", "", text)
    first = text.partition(". ")[0].partition("; ")[0].partition(": ")[0].rstrip(".:;")
    return f"{first}."


def _type_name(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin in (list, tuple):
        return "[" + _type_name(arguments[0]) + ",...]"
    if origin is dict:
        return "{NAME: ...}"
    if origin is Union or (origin is not None and type(None) in arguments):
        return "|".join(_type_name(argument) for argument in arguments if argument is not type(None))
    if len(arguments) > 1:
        return "|".join(map(_type_name, arguments))
    names = {str: "TEXT", int: "INT", float: "NUMBER", bool: "{true,false}"}
    return names.get(hint, "CLASS" if hint in PLUG_IN_BASES else "VALUE")


def _table(rows: Sequence[tuple[str, str]], column: int = 34) -> str:
    """Return two columns; a left cell that is too wide has its own line."""
    width, lines = _width(), []
    for left, right in rows:
        wrapped = textwrap.wrap(right, width - column, break_on_hyphens=False)
        if len(left) <= column - 4 and wrapped:
            lines.append(f"  {left:{column - 4}}  {wrapped.pop(0)}")
        else:
            lines.append(f"  {left}")
        lines += [f"{'':{column}}{line}" for line in wrapped]
    return "\n".join(lines)


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((80, 24)).columns, 120))


def _describe(component: Any, width: int) -> str:
    texts: dict[str, str] = {}
    hints = option_types(component)
    for parent in reversed(component.__mro__):
        texts |= _field_docs(parent) if is_dataclass(parent) else {}
    summary = f"  {class_path(component)}: {parse_from_object(component).short_description}"
    lines = textwrap.wrap(summary, width, subsequent_indent="    ", break_on_hyphens=False)
    for f in fields(component):
        if f.init:
            default = (
                f.default if f.default is not MISSING else f.default_factory() if callable(f.default_factory) else None
            )
            text = f"{f.name} ({_type_name(hints[f.name])}, default {_default_text(default)}): {texts.get(f.name, '')}"
            lines += textwrap.wrap(
                text, width, initial_indent="      ", subsequent_indent="        ", break_on_hyphens=False
            )
    return "\n".join(lines)


def _default_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)


def _field_docs(cls: Any) -> dict[str, str]:
    texts = {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(cls).params}
    return {name: _with_readers(text) if "{formats}" in text else text for name, text in texts.items()}


def _with_readers(text: str) -> str:
    """Return a help text with the readers and formats that the package has."""
    from mia_lightning.records.readers import known_formats, reader_names

    return text.replace("{readers}", ", ".join(reader_names())).replace("{formats}", known_formats())
