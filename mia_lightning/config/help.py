"""The only module that knows jsonargparse: options of dataclasses, configurations of command lines, errors."""

from __future__ import annotations

import textwrap
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from docstring_parser import parse_from_object

from mia_lightning.attacks import Attack
from mia_lightning.config.files import class_path
from mia_lightning.references.scores import ReferenceScore
from mia_lightning.scores.calibration import Calibrator

PLUG_IN_BASES: dict[type, str] = {
    Attack: "--attacks.NAME",
    Calibrator: "--evaluation.calibration",
    ReferenceScore: "--references.scores.NAME",
}
"""Base of each kind of configured class, and its option."""


def components(base: type) -> list[type]:
    """Return the concrete classes of a plug-in base, by name."""
    found: set[type] = set()
    queue = [base]
    while queue:
        subclasses: list[type] = queue.pop().__subclasses__()
        queue += subclasses
        found |= {kind for kind in subclasses if not kind.__subclasses__()}
    return sorted(found, key=lambda kind: kind.__name__)


def component_help() -> str:
    """Return the options of every attack and calibrator, for the end of `--help`."""
    parts = []
    for base, option in PLUG_IN_BASES.items():
        parts.append(f"classes for {option} (class_path), and their options (init_args):")
        parts += [_describe(component) for component in components(base)]
    return "\n".join(parts)


def _describe(kind: Any) -> str:
    parsed: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        parsed |= _field_docs(parent) if is_dataclass(parent) else {}
    lines = [f"  {class_path(kind)}: {parse_from_object(kind).short_description}"]
    for f in fields(kind):
        if f.init:
            default = (
                f.default if f.default is not MISSING else f.default_factory() if callable(f.default_factory) else None
            )
            text = f"{f.name} ({f.type}, default {default!r}): {parsed.get(f.name, '')}"
            lines.append(textwrap.fill(text, 116, initial_indent="      ", subsequent_indent="        "))
    return "\n".join(lines)


def _field_docs(kind: Any) -> dict[str, str]:
    return {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(kind).params}
