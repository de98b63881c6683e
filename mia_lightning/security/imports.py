"""Import of modules that a configuration names."""

import importlib
import sys
from types import ModuleType

from mia_lightning.errors import MIAError


def import_own(name: str) -> ModuleType:
    """Import a module by its dotted name; whatever importing it raises is passed on.

    Raises:
        MIAError: it is a module of the standard library, such as `os`, whose functions must not be called.
    """
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise MIAError(f"{name!r} is a module of Python's standard library, refused; name a module of your own")
    return importlib.import_module(name)
