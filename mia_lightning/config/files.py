"""The one typed configuration that the command line, YAML files and the Python API share.

A dataclass field is the option, the string below it the help. Nothing here imports torch, so that `--help` is instant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from mia_lightning.attacks import Attack
from mia_lightning.errors import MIAError
from mia_lightning.references.scores import ReferenceScore
from mia_lightning.scores.calibration import Calibrator

LARGEST = 2**20
"""Bytes of a configuration file."""


MOST_VALUES, DEEPEST = 100_000, 50
"""Limits of a configuration with its aliases written out."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML file of plain data (no tags are honored).

    Raises:
        MIAError: missing, not YAML, or not a mapping.
    """
    import yaml

    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise MIAError(f"{path} has over {LARGEST >> 10} KiB; expected a configuration")
        loader = yaml.SafeLoader(content.decode("utf-8-sig"))
        node = loader.get_single_node()
        _check_size(node, str(path))
        values = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise MIAError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:  # a date of month 99; too deep
        raise MIAError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise MIAError(f"{path} holds a {type(values).__name__}; expected a mapping of options")
    return values


def _check_size(root: Any, source: str) -> None:
    """Refuse what no configuration is: aliases that unfold without end, deep nesting, keys that are no text.

    Args:
        root: A node of PyYAML, or None; nothing has been built from it yet.
        source: The file, for error sentences.
    """
    left, seen = [(root, 1)], 0
    while left:
        node, depth = left.pop()
        parts = node.value if node is not None and not isinstance(node.value, str) else []
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        seen += 1 + len(inner)
        if seen > MOST_VALUES or depth > DEEPEST:
            limits = f"{MOST_VALUES:,} values or {DEEPEST} levels"
            raise MIAError(f"{source} unfolds to over {limits}; expected a configuration")
        odd = [key for key, _ in parts if not key.tag.endswith((":str", ":merge"))] if parts and inner != parts else []
        if odd:
            raise MIAError(f"{source} has an option that is no text ({odd[0].tag}); expected a name")
        left += [(part, depth + 1) for part in inner]


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with `above` laid over it, mapping by mapping; null takes an entry of a mapping away.

    An entry with another `class_path` replaces the one below whole, since their options differ.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and not _other_class(old, value):
            merged[key] = overlay(old, value)
        else:
            merged[key] = value
    return merged


def _other_class(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "class_path" in new and new["class_path"] != old.get("class_path")


def to_mapping(config: Any) -> Any:
    """Return the plain nested values of a configuration, as YAML holds them; classes as class_path and init_args."""
    if is_dataclass(config) and not isinstance(config, type):
        values = {f.name: to_mapping(getattr(config, f.name)) for f in fields(config) if f.init}
        if isinstance(config, Attack | Calibrator | ReferenceScore):
            return {"class_path": class_path(type(config)), "init_args": values}
        return values
    if isinstance(config, dict):
        return {key: to_mapping(value) for key, value in config.items()}
    if isinstance(config, Sequence) and not isinstance(config, str):
        return [to_mapping(value) for value in config]
    return config


def strip_paths(config: Any) -> Any:
    """Return `to_mapping` with every path cut down to its last name, for files that leave this machine."""
    return _without_folders(to_mapping(config))


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return re.sub(r"[^?=&:,]*[/\\]", "", value) if isinstance(value, str) else value


def relative_paths(values: Any) -> Any:
    """Return plain nested values with absolute paths rewritten relative to the working directory.

    What a run leaves shall tell nothing of the machine it ran on, and rerun from the same directory.
    """
    if isinstance(values, dict):
        return {key: relative_paths(value) for key, value in values.items()}
    if isinstance(values, list):
        return [relative_paths(value) for value in values]
    if not isinstance(values, str):
        return values
    name, option, path = values.partition("?root=")  # of a data set, such as torchvision:CIFAR10?root=data
    if option:
        return name + option + relative_paths(path)
    return os.path.relpath(values) if os.path.isabs(values) else values


def class_path(kind: type) -> str:
    """Return the name a configuration uses: the bare name of our own classes, the dotted path of others."""
    return kind.__name__ if kind.__module__.startswith("mia_lightning.") else f"{kind.__module__}.{kind.__qualname__}"
