"""scikit-learn's embedded digits, split for the demo: `digits:public` and `digits:private`."""

import numpy as np

from mia_lightning.errors import MIAError, suggest
from mia_lightning.records.records import Records

FORMATS = "scikit-learn's digits (digits:public, digits:private)"

PREFIX = "digits:"
HALVES = ("public", "private")
MISLABELED = 0.1


def matches(source: str) -> bool:
    """Whether the source names a half of the digits."""
    return source.startswith(PREFIX)


def read(source: str) -> Records:
    """Return one half of the 1,797 real 8x8 digits; a seeded half of it are members, by convention.

    The demo's target is trained on the members of both halves. The split never changes: ids are positions in
    scikit-learn's own order. A seeded tenth of the labels, of members and non-members, is redrawn at random:
    digits are so regular that a network classifies them all without memorizing any.

    Returns:
        Records with images (N, 1, 8, 8) uint8 in 0..255 (scikit-learn's 0..16, scaled), labels 0..9, membership 0/1.

    Raises:
        MIAError: the half is neither public nor private.
    """
    half = source.removeprefix(PREFIX)
    if half not in HALVES:
        raise MIAError(f"{source}: no such half; {suggest(half, HALVES)}")
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(digits.target))
    labels = np.where(rng.random(len(shuffled)) < MISLABELED, rng.integers(0, 10, len(shuffled)), digits.target)
    ids = np.array_split(shuffled, 2)[HALVES.index(half)].astype(np.int64)
    membership = np.zeros(len(ids), dtype=np.int8)
    membership[: len(ids) // 2] = 1  # the first of a permuted half are a random half of it
    order = np.argsort(ids)  # so that members are not the first rows
    images = np.rint(digits.images[ids[order]] * (255 / 16)).astype(np.uint8)
    return Records(
        ids=ids[order],
        images=images[:, None],
        labels=labels[ids[order]].astype(np.int64),
        membership=membership[order],
        source=source,
    )
