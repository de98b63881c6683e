"""YAML files of options, overlays, and configurations as plain nested values."""

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
from mia_lightning.security.open import open_regular

LARGEST = 2**18
"""Bytes of a configuration file."""

MOST_VALUES, DEEPEST, LONGEST_NUMBER = 20_000, 50, 100
"""Limits of a configuration with its aliases expanded: values, levels, characters of a number."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML file of plain data (no tags are honored).

    Raises:
        MIAError: missing, not a regular file, not YAML, or not a mapping. The message never repeats the content.
    """
    content = _read_regular_file(Path(path))
    if len(content) > LARGEST:
        raise MIAError(f"{path} is larger than {LARGEST >> 10} KiB; expected a configuration in YAML")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MIAError(f"{path} is not valid YAML: it is not text in UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Parse a YAML mapping of plain data, bounded before anything is built from it.

    Args:
        text: The YAML.
        source: Its name in messages.

    Raises:
        MIAError: not YAML, not a mapping, or larger than the limits.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_size(node, source)
        values = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date of month 99; nested too deeply
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise MIAError(f"{source} is not valid YAML{where}; expected a mapping of options") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise MIAError(f"{source} holds a {type(values).__name__}; expected a mapping of options")
    return values


def _read_regular_file(path: Path) -> bytes:
    """Return at most `LARGEST` + 1 bytes of a regular file; pipes and devices are refused without blocking."""
    try:
        with open_regular(path) as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise MIAError(f"cannot read the configuration {path}: {error.strerror}") from error


def _check_size(root: Any, source: str) -> None:
    """Refuse what cannot be a configuration: expanding aliases, deep nesting, long numbers, keys that are not text.

    Args:
        root: A node of PyYAML, or None; nothing has been built from it yet.
        source: The file, for messages.
    """
    stack, seen = [(root, 1)], 0
    while stack:
        node, depth = stack.pop()
        if node is not None and node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
            raise MIAError(f"{source} contains a number of {len(node.value):,} characters; expected a configuration")
        parts = node.value if node is not None and not isinstance(node.value, str) else []
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        seen += 1 + len(inner)
        if seen > MOST_VALUES or depth > DEEPEST:
            limits = f"{MOST_VALUES:,} values or {DEEPEST} levels"
            raise MIAError(f"{source} expands to more than {limits}; expected a configuration")
        pairs = parts if inner != parts else []
        not_text = [key for key, _ in pairs if not key.tag.endswith((":str", ":merge"))]
        if not_text:
            raise MIAError(f"{source} has an option whose name is not text ({not_text[0].tag}); expected a name")
        names: set[str] = set()
        for key, _ in pairs:
            if key.value in names:
                raise MIAError(f"{source} sets an option twice (line {key.start_mark.line + 1}); keep one of them")
            names.add(key.value)
        stack += [(part, depth + 1) for part in inner]


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` updated with `above`, mapping by mapping; null removes an entry of a mapping.

    An entry with another `class_path` replaces the entry below completely, since their options differ.
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
    """Return `to_mapping` with every path reduced to its last component, for files that are passed on."""
    return _without_folders(to_mapping(config))


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return re.sub(r"[^?=&:,]*[/\\]", "", value) if isinstance(value, str) else value


def relative_paths(values: Any) -> Any:
    """Return plain nested values with absolute paths rewritten relative to the working directory.

    A saved configuration then reveals nothing about the machine and reruns from the same directory.
    """
    if isinstance(values, dict):
        return {key: relative_paths(value) for key, value in values.items()}
    if isinstance(values, list):
        return [relative_paths(value) for value in values]
    if not isinstance(values, str):
        return values
    if match := re.fullmatch(r"(.*\?root=|medmnist:)(.+)", values):  # such as torchvision:CIFAR10?root=data
        return match[1] + relative_paths(match[2])
    return os.path.relpath(values) if os.path.isabs(values) else values


def class_path(cls: type) -> str:
    """Return the name that configurations use: the bare name of this package's classes, the dotted path of others."""
    return cls.__name__ if cls.__module__.startswith("mia_lightning.") else f"{cls.__module__}.{cls.__qualname__}"
