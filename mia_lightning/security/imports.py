"""Importing what a configuration names as the user's own."""

import importlib
import sys
from types import ModuleType

from mia_lightning.errors import MIAError


def import_own(name: str) -> ModuleType:
    """Import a module by its dotted name; whatever importing it raises is passed on.

    Raises:
        MIAError: it is one of the standard library's, where nothing of ours can be, but `os:abort` can.
    """
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise MIAError(f"{name!r} is a module of Python itself, refused; name a module of your own")
    return importlib.import_module(name)
