"""Import of user code named as "package.module:attribute"."""

import inspect
import os
import sys
from collections.abc import Callable

from mia_lightning.errors import MIAError, suggest
from mia_lightning.security.imports import import_own


def import_callable(name: str, option: str) -> Callable[..., object]:
    """Import a class or function by "package.module:attribute"; the current folder is searched last.

    Args:
        name: The name.
        option: The option that gave it, for messages ("--target.architecture").

    Raises:
        MIAError: the import fails, or the module has no such class or function.
    """
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # console scripts omit the current folder; last, so that it shadows nothing
        sys.path.append(os.getcwd())
    try:
        module = import_own(module_name)
    except MIAError:
        raise
    except Exception as error:
        raise MIAError(f"{option} {name}: importing {module_name!r} failed: {first_line(error)}") from error
    value = getattr(module, attribute, None)
    if not callable(value):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        hint = suggest(attribute, public)
        raise MIAError(f"{option}: {module_name} has no class or function {attribute!r}; {hint}")
    function: Callable[..., object] = value
    return function


def source_of(name: str | None) -> str:
    """Return the source text of the module in "package.module:attribute", which determines it; "" for other names."""
    module = sys.modules.get(name.partition(":")[0]) if name and ":" in name else None
    try:
        return inspect.getsource(module) if module else ""
    except (OSError, TypeError):  # defined in a prompt, or compiled
        return ""


def first_line(error: Exception) -> str:
    """Return "Type: message" of an error in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
