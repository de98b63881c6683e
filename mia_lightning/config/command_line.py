"""The one typed configuration that the command line, YAML files and the Python API share.

A dataclass field is the option, the string below it the help. Nothing here imports torch, so that `--help` is instant.
"""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from mia_lightning.config.files import class_path, overlay, to_mapping
from mia_lightning.config.help import PLUG_IN_BASES, component_help, components
from mia_lightning.config.schema import RunConfig
from mia_lightning.config.search import TuneConfig
from mia_lightning.config.shipped import descriptions, read_configurations
from mia_lightning.errors import MIAError, suggest
from mia_lightning.evaluation.config import OneRun, ScoreEvaluationConfig
from mia_lightning.runtime.environment import without_variables

EXAMPLES = """\
examples:
  the assignment:   train.py --config configs/no_reference.yaml --data.public pub.pt --data.private priv_out.pt \\
                      --target.checkpoint 01_MIA.pt --output runs/assignment
  an overlay:       train.py --config configs/no_reference.yaml --config mine.yaml
  one option:       train.py --config configs/course_baseline.yaml --attacks.mlp.learning_rate 0.01 ...
  the whole truth:  train.py --config configs/course_baseline.yaml --print_config > mine.yaml
"""


TUNE_EXAMPLES = """\
examples:
  heads of attacks:  tune.py --config configs/tune.yaml --data.public pub.pt --data.private priv_out.pt \\
                       --target.checkpoint 01_MIA.pt --output runs/sweep
  go on:             the same command and --resume
  reference recipes: tune.py --config configs/tune_references.yaml --data.public pub.pt --target.checkpoint 01_MIA.pt
  the winner:        train.py --config runs/sweep/best.yaml
"""


EVALUATION_EXAMPLES = """\
examples:
  scores of attacks:   python -m mia_lightning.evaluate scores.csv --output evaluation
  a separate key:      python -m mia_lightning.evaluate scores.parquet --key key.csv --output evaluation
  a challenge:         python -m mia_lightning.evaluate --leaderboard key.csv submissions/*.csv --fpr 0.05
"""


class _HelpFormatter(DefaultHelpFormatter):
    """Keeps the line breaks of the epilogue."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))


Config = TypeVar("Config", bound=RunConfig)


def run_parser(*, prog: str = "train.py", epilog: str = "", kind: type[RunConfig] = RunConfig) -> ArgumentParser:
    """Return the parser of a `RunConfig`, or of a subclass."""
    set_parsing_settings(subclasses_enabled=list(PLUG_IN_BASES), docstring_parse_attribute_docstrings=True)
    with without_variables("JSONARGPARSE_"):  # which would read options from the environment
        parser = ArgumentParser(
            prog=prog,
            description="Say which records an image classifier was trained on, with an honest error rate.",
            epilog=epilog,
            exit_on_error=False,
            formatter_class=_HelpFormatter,
        )
    parser.add_argument("--config", action="config", help="YAML file of options; later files lie over earlier ones.")
    parser.add_class_arguments(kind)
    return parser


def parse_arguments(argv: Sequence[str], *, prog: str) -> RunConfig:
    """Turn a command line of train.py into a configuration. `--help` and `--print_config` print and exit with code 0.

    Raises:
        MIAError: an unknown option or key (with the closest legal name), or a value of the wrong type or out of range.
    """
    return _parse_arguments(argv, prog=prog, kind=RunConfig, examples=EXAMPLES)


def parse_tuning(argv: Sequence[str]) -> TuneConfig:
    """Turn a command line of tune.py into a configuration, as `parse_arguments` does.

    Raises:
        MIAError: likewise.
    """
    return _parse_arguments(argv, prog="tune.py", kind=TuneConfig, examples=TUNE_EXAMPLES)


def _parse_arguments(argv: Sequence[str], *, prog: str, kind: type[Config], examples: str) -> Config:
    files, rest = _split_config_files(argv)
    if "--list_configs" in rest:
        print(descriptions())
        raise SystemExit(0)
    merged = read_configurations(files)
    wants_help = "-h" in rest or "--help" in rest
    parser = run_parser(prog=prog, epilog=f"{examples}\n{component_help()}" if wants_help else "", kind=kind)
    with translate(lambda: option_names(kind)):
        base = yaml.safe_dump(complete(merged, kind), sort_keys=False)
        return instantiate(parser, parser.parse_args(["--config", base, *rest]), kind)


def parse_mapping(values: dict[str, Any]) -> RunConfig:
    """Turn nested plain values into a configuration, checked as the command line checks them.

    Raises:
        MIAError: see `parse_arguments`.
    """
    parser = run_parser()
    with translate():
        return instantiate(parser, parser.parse_object(complete(values)), RunConfig)


def load_config(*files: str | Path, **overrides: Any) -> RunConfig:
    """Read YAML files, later ones over earlier ones, then the overrides.

    Args:
        files: Paths of YAML files.
        overrides: Top-level options: `data={"public": "pub.pt"}, seed=1`.

    Raises:
        MIAError: an unknown key, a value of the wrong type or out of range, an unreadable file.
    """
    return parse_mapping(overlay(read_configurations(files), overrides))


def instantiate(parser: ArgumentParser, parsed: Any, kind: type[Config]) -> Config:
    """Build the dataclasses of a parsed configuration."""
    built = parser.instantiate(parsed)
    return kind(**{f.name: built[f.name] for f in fields(kind)})


def complete(values: dict[str, Any], kind: type[RunConfig] = RunConfig) -> dict[str, Any]:
    """Lay values over the defaults; configured attacks take the place of the default one, null entries go."""
    defaults = to_mapping(kind())
    if values.get("attacks"):
        del defaults["attacks"]
    for name, default in defaults.items():
        if isinstance(default, dict) and not isinstance(values.get(name, {}), dict):
            raise MIAError(f"configuration: {name} must be a mapping of options, got {values[name]!r}")
    merged = overlay(defaults, values)
    for above, name in ((merged, "attacks"), (merged.get("search"), "space")):
        if above and isinstance(above.get(name), dict):
            above[name] = {key: value for key, value in above[name].items() if value is not None}
    return merged


def _split_config_files(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files named by --config, and all other arguments."""
    files, rest, arguments = [], [], iter(argv)
    for argument in arguments:
        if argument == "--config":
            files.append(next(arguments, ""))
        elif argument.startswith("--config="):
            files.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    return files, rest


def parse_evaluation(argv: Sequence[str]) -> ScoreEvaluationConfig:
    """Turn the command line of `python -m mia_lightning.evaluate` into its options; `--help` prints and exits.

    Raises:
        MIAError: an unknown option (with the closest legal name), or a value of the wrong type.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    with without_variables("JSONARGPARSE_"):  # which would read options from the environment
        parser = ArgumentParser(
            prog="python -m mia_lightning.evaluate",
            description="Say how well scores tell members from non-members, how sure that is, and what it proves.",
            epilog=EVALUATION_EXAMPLES,
            exit_on_error=False,
            formatter_class=_HelpFormatter,
        )
    parser.add_argument("scores", nargs="*", help="Files of scores, CSV or Parquet.")
    parser.add_class_arguments(ScoreEvaluationConfig, skip={"scores"})
    names = [f.name for f in fields(ScoreEvaluationConfig)] + [f"one_run.{f.name}" for f in fields(OneRun)]
    with translate(lambda: names):
        values = parser.instantiate(parser.parse_args(list(argv))).as_dict()
    return ScoreEvaluationConfig(**values | {"scores": tuple(values["scores"])})


@contextmanager
def translate(legal: Callable[[], list[str]] | None = None) -> Iterator[None]:
    """Turn jsonargparse's errors, and a component's own ValueError, into one MIAError sentence.

    Args:
        legal: Returns the options to suggest one from; those of a run when not given.
    """
    try:
        yield
    except ArgumentError as error:
        raise MIAError(f"configuration: {_sentence(str(error), legal or option_names)}") from error
    except (ValueError, TypeError) as error:
        raise MIAError(f"configuration: {error}") from error


def _sentence(message: str, options: Callable[[], list[str]]) -> str:
    keys = re.findall(r'Parser key "([^"]+)"', message)
    where = ".".join(keys) + ": " if keys else ""
    last = message.strip().splitlines()[-1].strip()
    if found := re.search(r"unrecognized arguments: --([\w.]+)", last):
        return f"unknown option --{found[1]}; {suggest(found[1], options())}"
    if found := re.search(r"Group '([\w.]+)' does not accept option '(\w+)'", last):
        return f"unknown key {found[1]}.{found[2]}; {suggest(found[2], _names(_resolve(found[1])))}"
    if found := re.search(r"Option '([\w.]+)' is not accepted", last):
        kind = _class_named(message) or RunConfig
        return f"{where}{kind.__name__} has no option {found[1]!r}; {suggest(found[1], _names(kind))}"
    if found := re.search(r"Expected a dot import path string: (\S+)", last):
        legal = [class_path(kind) for base in PLUG_IN_BASES for kind in components(base)]
        return f"{where}no class is named {found[1]!r}; {suggest(found[1], legal)}"
    if "valid subclass" in message:
        return f"{where}expected a class_path with init_args, see --help"
    if found := re.search(r"Expected an? <class '(\w+)'>\. Got value: (.*)", last):
        return f"{where}expected {found[1]}, got {found[2]!r}"
    if found := re.search(r"Expected a typing.Literal(\[.*\])\. Got value: (.*)", last):
        return f"{where}expected one of {found[1]}, got {found[2]!r}"
    return where + " ".join(line.strip() for line in message.splitlines() if "Parser key" not in line)


def _class_named(message: str) -> type | None:
    found = re.findall(r"given class_path '([\w.]+)'", message)
    kinds = {f"{kind.__module__}.{kind.__qualname__}": kind for base in PLUG_IN_BASES for kind in components(base)}
    return kinds.get(found[-1]) if found else None


def _resolve(group: str) -> type:
    kind: Any = TuneConfig()
    for name in group.split("."):
        kind = getattr(kind, name)
    return type(kind)


def _names(kind: type) -> list[str]:
    return [f.name for f in fields(kind) if f.init]


def option_names(kind: type[RunConfig] = RunConfig) -> list[str]:
    """Return every dotted option of a run, attack options aside."""
    return ["config", "print_config", "help", *_dotted(kind())]


def _dotted(config: Any) -> list[str]:
    names = []
    for name in _names(type(config)):
        value = getattr(config, name)
        if is_dataclass(value) and not isinstance(value, type):
            names += [f"{name}.{inner}" for inner in _dotted(value)]
        else:
            names.append(name)
    return names
