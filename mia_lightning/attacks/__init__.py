"""Membership inference attacks, one per file; every file in this package is imported and so registered."""

from importlib import import_module
from pkgutil import iter_modules

from mia_lightning.attacks.base import Attack, ValidationRows
from mia_lightning.attacks.threshold import Threshold

for _module in iter_modules(__path__):  # the configuration lists the subclasses of Attack
    if not _module.name.startswith("_"):
        import_module(f"{__name__}.{_module.name}")

__all__ = ["Attack", "Threshold", "ValidationRows"]
