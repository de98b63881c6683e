"""Attacks: each file is one way to turn signals into a membership score; a new file is found by itself."""

from importlib import import_module
from pkgutil import iter_modules

from mia_lightning.attacks.base import Attack, ValidationRows
from mia_lightning.attacks.threshold import Threshold

for _module in iter_modules(__path__):  # defining a subclass is all that makes it known to the configuration
    if not _module.name.startswith("_"):
        import_module(f"{__name__}.{_module.name}")

__all__ = ["Attack", "Threshold", "ValidationRows"]
