"""Command lines and Python calls as typed configurations.

A dataclass field is the option, the string below it the help. Nothing here imports torch, so that `--help` is instant.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

import yaml

from mia_lightning.config.arguments import Arguments, append, read_arguments
from mia_lightning.config.benchmark import BenchmarkConfig
from mia_lightning.config.class_paths import resolve
from mia_lightning.config.commands import command_of
from mia_lightning.config.files import overlay, to_mapping
from mia_lightning.config.help import class_help, full_help, short_help
from mia_lightning.config.renamed import with_current_names
from mia_lightning.config.schema import RunConfig
from mia_lightning.config.search import TuneConfig
from mia_lightning.config.shipped import descriptions, read_configurations
from mia_lightning.config.values import check_values, group_of_entries, is_group, option_types, plug_in_base
from mia_lightning.errors import MIAError
from mia_lightning.evaluation.config import ScoreEvaluationConfig

Config = TypeVar("Config")
Run = TypeVar("Run", bound=RunConfig)


def parse_arguments(argv: Sequence[str], *, prog: str = "train.py") -> RunConfig:
    """Return the configuration of a command line of train.py.

    `--help`, `--help_all`, `--list_configs` and `--print_config` print and exit with code 0.

    Args:
        argv: Without the program's name.
        prog: Not used; the help shows the command as it was typed.

    Raises:
        MIAError: an unknown option or key (with the closest legal name), or a value of the wrong type or out of range.
    """
    del prog
    return _parse(argv, RunConfig)


def parse_tuning(argv: Sequence[str]) -> TuneConfig:
    """Return the configuration of a command line of tune.py.

    Raises:
        MIAError: an unknown option or key (with the closest legal name), or a value of the wrong type or out of range.
    """
    return _parse(argv, TuneConfig)


def parse_evaluation(argv: Sequence[str]) -> ScoreEvaluationConfig:
    """Return the options of a command line of `python -m mia_lightning.evaluate`; `--help` prints and exits.

    Raises:
        MIAError: an unknown option (with the closest legal name), or a value of the wrong type.
    """
    return parse_files(argv, ScoreEvaluationConfig, "scores")


def parse_files(argv: Sequence[str], cls: type[Config], positional: str) -> Config:
    """Return the options of a command whose arguments without an option name files; `--help` prints and exits.

    Args:
        argv: Without the program's name.
        cls: The dataclass whose fields are the options.
        positional: Option that the arguments without an option are the value of.

    Raises:
        MIAError: an unknown option (with the closest legal name), or a value of the wrong type.
    """
    command = command_of(cls)
    arguments = read_arguments(argv, cls, flags=tuple(command.flags), positional=True)
    _print_help(arguments, cls)
    values = overlay(to_mapping(cls()), arguments.options)
    append(values, arguments.appended)
    if arguments.positional:
        values[positional] = arguments.positional
    return _build(values, cls)


def print_helps(*classes: type) -> NoReturn:
    """Print the common options of several commands and exit with code 0."""
    _print_and_exit("\n\n".join(short_help(command_of(cls)) for cls in classes))


def parse_benchmark(argv: Sequence[str]) -> BenchmarkConfig:
    """Return the options of a command line of `python -m mia_lightning.benchmark`; `--help` prints and exits.

    Raises:
        MIAError: an unknown option (with the closest legal name), or a value of the wrong type or out of range.
    """
    arguments = read_arguments(argv, BenchmarkConfig, flags=tuple(command_of(BenchmarkConfig).flags))
    _print_help(arguments, BenchmarkConfig)
    return _build(overlay({}, arguments.options), BenchmarkConfig)


def parse_mapping(values: dict[str, Any]) -> RunConfig:
    """Return the configuration of nested plain values, checked as the command line checks them.

    Raises:
        MIAError: see `parse_arguments`.
    """
    return _build(complete(values), RunConfig)


def load_config(*files: str | Path, **overrides: Any) -> RunConfig:
    """Read configurations, later ones over earlier ones, then the overrides.

    Args:
        files: Paths of YAML files, or names of shipped configurations such as "demo".
        overrides: Top-level options: `data={"public": "pub.pt"}, seed=1`.

    Raises:
        MIAError: an unknown key, a value of the wrong type or out of range, an unreadable file.
    """
    return parse_mapping(overlay(read_configurations(files), with_current_names(to_mapping(overrides))))


def complete(values: dict[str, Any], cls: type[RunConfig] = RunConfig) -> dict[str, Any]:
    """Return the defaults updated with values; configured attacks replace the default one, null entries are removed."""
    defaults = to_mapping(cls())
    if values.get("attacks"):
        del defaults["attacks"]
    merged = overlay(defaults, values)
    references = merged.get("references")
    sets = references.get("sets") if isinstance(references, dict) else None
    further = sets.values() if isinstance(sets, dict) else ()
    groups = [(merged, "attacks"), (references, "sets"), (merged.get("search"), "space")]
    groups += [(each, "scores") for each in (references, *further)]
    for above, name in groups:
        if isinstance(above, dict) and isinstance(above.get(name), dict):
            above[name] = {key: value for key, value in above[name].items() if value is not None}
    return merged


def _parse(argv: Sequence[str], cls: type[Run]) -> Run:
    command = command_of(cls)
    arguments = read_arguments(argv, cls, flags=tuple(command.flags))
    _print_help(arguments, cls)
    values = complete(overlay(read_configurations(arguments.files), arguments.options), cls)
    append(values, arguments.appended)
    config = _build(values, cls)
    if "print_config" in arguments.flags:
        _print_and_exit(yaml.safe_dump(to_mapping(config), sort_keys=False))
    return config


def _print_help(arguments: Arguments, cls: type) -> None:
    """Print the text of a flag and exit, where one is given."""
    if "help" in arguments.flags:
        _print_and_exit(short_help(command_of(cls)))
    if "help_all" in arguments.flags:
        _print_and_exit(full_help(command_of(cls)))
    if "list_configs" in arguments.flags:
        _print_and_exit(descriptions())
    if arguments.help_of is not None:
        _print_and_exit(class_help(*arguments.help_of))


def _print_and_exit(text: str) -> NoReturn:
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:  # piped into head
        sys.stderr.close()
    raise SystemExit(0)


def _build(values: dict[str, Any], cls: type[Config]) -> Config:
    """Return the dataclass of complete nested values.

    Raises:
        MIAError: a value is unknown, of the wrong type, or refused by the dataclass.
    """
    checked = check_values(values, cls)
    try:
        config: Config = _instantiate(checked, cls)
    except (ValueError, TypeError) as error:
        raise MIAError(f"configuration: {error}") from error
    return config


def _instantiate(value: Any, hint: Any) -> Any:
    """Return checked plain values as the dataclasses and classes that they describe."""
    if get_origin(hint) in (Union, UnionType):
        groups = [inner for inner in get_args(hint) if is_group(inner)]
        return _instantiate(value, groups[0]) if groups and value is not None else value
    if is_group(hint):
        return hint(
            **{name: _instantiate(value[name], inner) for name, inner in option_types(hint).items() if name in value}
        )
    if (group := group_of_entries(hint)) is not None:
        return {name: _instantiate(inner, group) for name, inner in value.items()}
    if (base := plug_in_base(hint)) is not None:
        if get_origin(hint) is dict:
            return {name: _instantiate(inner, base) for name, inner in value.items()}
        return resolve(value["class_path"], base, "")(**value["init_args"])
    return value
