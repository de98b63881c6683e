"""Several sets of reference models in one run: their options in messages, their columns."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.columns import reference_columns
from mia_lightning.references.config import ReferencesConfig, column_of
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.prepare import ReferenceInputs, load_or_train_references
from mia_lightning.references.result import References
from mia_lightning.references.store import ReferenceRecord

log = logging.getLogger(__name__)

OPTION = re.compile(r"\breferences\.(?=[a-z])")


class SetFinished(Protocol):
    """Callback invoked with each reference of a set when it is trained."""

    def __call__(self, row: ReferenceRecord, set_name: str) -> object:
        """Take a trained reference."""


def seed_of(seed: int, name: str) -> int:
    """Return the seed of a set: halves that differ from those of other sets, which add more than the same halves."""
    return int(np.random.SeedSequence((seed, *name.encode())).generate_state(1)[0] >> 1) if name else seed


def in_set(text: str, name: str) -> str:
    """Return a message about reference models with its options as those of a set."""
    return OPTION.sub(f"references.sets.{name}.", text) if name else text


@contextmanager
def options_of(name: str) -> Iterator[None]:
    """Raise errors of the block with their options as those of a set, and how to leave it out."""
    try:
        yield
    except MIAError as error:
        if not name:
            raise
        hint = f"; --references.sets.{name} null leaves the set out"
        raise MIAError(in_set(str(error), name) + hint) from error


def of_set(references: References, name: str) -> References:
    """Return the reference models of a set, with checks that name it."""
    if not name:
        return references
    checks = (
        replace(check, name=f"{name}: {check.name}", detail=f"set {name}: {in_set(check.detail, name)}")
        for check in references.checks
    )
    return replace(references, checks=tuple(checks))


def load_or_train_sets(
    config: ReferencesConfig,
    inputs: ReferenceInputs,
    *,
    store: Path,
    seed: int,
    ray_address: str | None = None,
    remote: str | None = None,
    on_reference: SetFinished | None = None,
) -> dict[str, References]:
    """Return the references of each set by its name, "" for those outside `sets`; see `load_or_train_references`."""
    sets = {}
    for name, options in config.by_set.items():
        if name:
            log.info("references of the set %s", name)
        of_this = None if on_reference is None else partial(on_reference, set_name=name)
        with options_of(name):
            trained = load_or_train_references(
                options,
                replace(inputs, on_reference=of_this),
                store=store,
                seed=seed_of(seed, name),
                ray_address=ray_address,
                remote=remote,
            )
        sets[name] = of_set(trained, name)
    return sets


def columns_of_sets(
    config: ReferencesConfig, outputs: Mapping[str, ReferenceOutputs]
) -> dict[str, NDArray[np.float64]]:
    """Return the columns of the scores of every set, (N,) each.

    Args:
        config: Options of all sets.
        outputs: Set to phi of N records; "" for the models outside `sets`.

    Raises:
        MIAError: a score that the references are too few for, or a column that two sets have.
    """
    columns: dict[str, NDArray[np.float64]] = {}
    for name, options in config.by_set.items():
        with options_of(name):
            scores = {column_of(name, score): value for score, value in options.scores.items()}
            values = reference_columns(scores, outputs[name])
        if clash := columns.keys() & values.keys():
            raise MIAError(f"two sets of references have a column {min(clash)!r}; rename --references.sets.{name}")
        columns |= values
    return columns
