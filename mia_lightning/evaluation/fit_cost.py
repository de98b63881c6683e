"""Cost model of fitting an attack, from its settings and the size of its table alone.

A plan made from measured times would differ from machine to machine and with their load; this one does not. Constants
are rounded medians on one core of a 2024 server (200 and 1,000 rows, 10 and 100 columns).
"""

from mia_lightning.attacks.base import Attack

STEP = 2.0e-3
"""Seconds per optimizer step of a network with one hidden layer or two."""

TREE = 5.0e-4
"""Seconds per tree, without its data."""

CELL = 2.5e-8
"""Seconds per tree, row and column."""

ROW = 2.0e-6
"""Seconds per row of an attack with neither networks nor trees."""


def fit_seconds(attack: Attack, rows: int, columns: int) -> float:
    """Return the expected seconds of one fit.

    Args:
        attack: Networks are recognized by their field `epochs`, trees by `n_estimators`.
        rows: Rows fitted on.
        columns: Columns of the table, the most that the attack can read.
    """
    if not attack.is_trainable:
        return ROW * rows
    epochs, trees = getattr(attack, "epochs", None), getattr(attack, "n_estimators", None)
    if isinstance(epochs, int):
        steps = epochs * -(-rows // max(1, int(getattr(attack, "batch_size", 200))))
        return STEP * steps * (1 + 0.1 * int(getattr(attack, "ensemble_size", 1)))
    if isinstance(trees, int):
        return trees * (TREE + CELL * rows * columns)
    return ROW * rows * 10
