"""Folds and held-out records of a run."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.results import SplitInfo
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD, assign_folds, draw_holdout


def split_public(config: RunConfig, public: Records, order: NDArray[np.intp] | None = None) -> SplitInfo:
    """Assign the records that are not held out to folds, in a given order of the records where there is one.

    Raises:
        MIAError: fewer members or non-members than folds, or none of them held out although some should be.
    """
    evaluation, member = config.evaluation, public.membership
    options: dict[str, Any] = {"seed": config.seed, "groups": public.groups, "order": order}
    held_out = draw_holdout(member, share=evaluation.holdout, **options)
    in_folds = np.where(held_out, np.int8(UNKNOWN), member)
    fold = assign_folds(in_folds, folds=evaluation.folds, **options)
    counts = [int((held_out & (member == value)).sum()) for value in (1, 0)]
    if evaluation.holdout and min(counts) == 0:
        raise MIAError(
            f"--evaluation.holdout {evaluation.holdout:g} holds out {counts[0]} members and {counts[1]} non-members; "
            "raise it, or give more records of known membership"
        )
    return SplitInfo(public.ids, member, fold, held_out, public.groups)


def split_private(private: Records | None) -> SplitInfo | None:
    """Return the private records, in no fold and not held out; None without any."""
    if private is None:
        return None
    none_held_out = np.zeros(len(private), np.bool_)
    return SplitInfo(private.ids, private.membership, np.full(len(private), NOT_IN_ANY_FOLD, np.int8), none_held_out)
