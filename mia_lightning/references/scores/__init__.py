"""Scores from reference models, one file per family.

To add one:

1. Write a file here with a dataclass that derives from `ReferenceScore`; its fields are its options.
2. Implement `columns(reference_outputs)`: "" is the score, higher = more likely a member.
3. Read references through `reference_outputs.in_out_masks`, `references.moments` and `references.variances` only.
4. Use it: `--references.scores "{name: {class_path: YourScore}}"`; nothing is registered anywhere.
5. Run `pytest tests/references/scores/test_contracts.py`, which finds it and tests the contract.
"""

from importlib import import_module
from pkgutil import iter_modules

from mia_lightning.references.scores.base import Columns, ReferenceScore

for _module in iter_modules(__path__):  # defining a subclass makes it available to the configuration
    if not _module.name.startswith("_"):
        import_module(f"{__name__}.{_module.name}")

__all__ = ["Columns", "ReferenceScore"]
