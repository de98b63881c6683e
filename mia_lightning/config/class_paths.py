"""Classes that a configuration names: found by name, refused before an import where they cannot be components."""

import ast
import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

from mia_lightning.attacks import Attack
from mia_lightning.config import renamed
from mia_lightning.config.files import class_path
from mia_lightning.errors import MIAError, suggest
from mia_lightning.references.scores import ReferenceScore
from mia_lightning.scores.calibration import Calibrator

PLUG_IN_BASES: dict[type, str] = {
    Attack: "--attacks.NAME",
    Calibrator: "--evaluation.calibration",
    ReferenceScore: "--references.scores.NAME",
}
"""Base of each group of configured classes, and its option."""


def components(base: type) -> list[type]:
    """Return the concrete classes of a plug-in base, by name."""
    concrete: set[type] = set()
    queue = [base]
    while queue:
        subclasses: list[type] = queue.pop().__subclasses__()
        queue += subclasses
        concrete |= {subclass for subclass in subclasses if not subclass.__subclasses__()}
    return sorted(concrete, key=lambda component: component.__name__)


def resolve(name: object, base: type, option: str) -> type:
    """Return the class that a `class_path` names.

    Args:
        name: The bare name of a class of this package, or `package.module.Class`.
        base: The plug-in base that it must derive from.
        option: The option that holds it, for messages.

    Raises:
        MIAError: unknown, renamed, not a class derived from `base`, or its module cannot be imported. Modules of
            Python itself, and names that are visibly not classes, are refused without an import.
    """
    if not isinstance(name, str):
        raise MIAError(f"--{option}: class_path must be a name, got {type(name).__name__}")
    if "/" in name or name.startswith("."):
        path, _, attribute = name.partition(":")
        module = path.removesuffix(".py").strip("./").replace("/", ".")
        raise MIAError(
            f"--{option}: {name!r} must be written as package.module.Class; did you mean "
            f"'{module}.{attribute or 'Class'}'?"
        )
    name = name.replace(":", ".").removesuffix(".py")
    classes = {class_path(component): component for component in components(base)}
    classes |= {f"{component.__module__}.{component.__qualname__}": component for component in components(base)}
    if name in classes:
        return classes[name]
    if name.startswith("mia_lightning."):  # a former module of a class of this package
        name = name.rpartition(".")[2]
    if name in renamed.CLASSES:
        renamed.note(f"class {name!r}", repr(renamed.CLASSES[name]))
        name = renamed.CLASSES[name]
    if name in classes:
        return classes[name]
    if sentence := renamed.removal(name):
        raise MIAError(f"--{option}: {sentence}")
    if "." not in name:
        hint = suggest(name, [class_path(component) for component in components(base)], see=_help_option(option))
        raise MIAError(f"--{option}: no class is named {name!r}; {hint}")
    return _import(name, base, option)


def _import(name: str, base: type, option: str) -> type:
    module_name, _, attribute = name.rpartition(".")
    refusal = f"--{option}: {name!r} is not a subclass of {base.__name__}"
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise MIAError(f"{refusal} but belongs to Python itself; refused without importing it")
    if os.getcwd() not in sys.path:  # console scripts leave the working directory out; last, so that nothing is hidden
        sys.path.append(os.getcwd())
    if not _may_define_class(module_name, attribute):
        raise MIAError(f"{refusal}: {module_name} defines no such class; refused without importing it")
    try:
        cls = getattr(import_module(module_name), attribute, None)
    except Exception as error:
        reason = str(error).partition("\n")[0] or "no message"
        raise MIAError(f"--{option}: importing {module_name!r} failed: {type(error).__name__}: {reason}") from error
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise MIAError(f"{refusal}; expected package.module.Class derived from mia_lightning's {base.__name__}")
    return cls


def _may_define_class(module_name: str, attribute: str) -> bool:
    """Return whether a module's source text defines or imports a class of that name; True without source text."""
    path = _source(module_name)
    if path is None:
        return True
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return True  # the import itself reports it
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            return True
        names = node.names if isinstance(node, ast.ImportFrom | ast.Import) else []
        if any((alias.asname or alias.name) in (attribute, "*") for alias in names):
            return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == attribute:
            return True
    return False


def _source(module_name: str) -> Path | None:
    """Return the file of a module, found without importing its packages; None where there is none."""
    folders: list[str] | None = None
    spec = None
    for part in module_name.split("."):
        spec = PathFinder.find_spec(part, folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or [])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _help_option(option: str) -> str:
    for prefix in ("attacks", "references.scores", "evaluation.calibration"):
        if option.startswith(prefix):
            return f"--{prefix}.help"
    return "--help_all"
