"""Attacks: each file is one way to turn signals into a membership score; a new file is found by itself."""

from importlib import import_module
from pkgutil import iter_modules

from mia_lightning.attacks.base import Attack, Watch
from mia_lightning.attacks.threshold import Threshold

for _module in iter_modules(__path__):  # defining the subclasses is all that makes them known to the configuration
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Attack", "Threshold", "Watch"]
