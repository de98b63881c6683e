"""Access ladder: what an attacker reaches with the label alone, with probabilities, logits, views and more.

Each rung is the same learner, cross-fitted over the same folds, on what the target's stored outputs show at that level
of access. No further query is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.access_columns import Columns, access_columns
from mia_lightning.evaluation.comparison import comparable_rates, differences, paired_bootstrap
from mia_lightning.metrics.roc import Evaluation, evaluate
from mia_lightning.outputs.access import LEVELS, Access
from mia_lightning.scores.folds import NOT_IN_ANY_FOLD

if TYPE_CHECKING:
    from mia_lightning.attacks.lightgbm import LightGBM
    from mia_lightning.evaluation.assessment import Difference
    from mia_lightning.outputs.outputs import Outputs

FPRS = (0.01, 0.05)
"""False-positive rates of the ladder."""

FEWEST = 200
"""Members, and non-members, without which there is no ladder: a rate of 5% then allows ten false positives."""

RESAMPLES = 500
"""Of the paired bootstrap between neighboring rungs."""

NO_TOP = (
    "the levels top1 and topk do not apply to a multi-label target, whose labels do not compete; full probabilities "
    "are as good as logits"
)

LEARNER = "LightGBM (100 trees of 15 leaves)"


@dataclass(frozen=True, eq=False)
class Rung:
    """Attack at one level of access."""

    access: Access
    queries: int
    """Queries of the target per record."""

    evaluation: Evaluation
    """Out-of-fold figures at the rates of `FPRS`."""

    gain: tuple[Difference, ...]
    """This rung minus the one below, by figure; empty for the first."""

    records: int
    """Records that were attacked."""

    models: int
    """Reference models."""

    seconds: float
    """Time of reducing the outputs, fitting and scoring."""

    attack: str = LEARNER

    scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)
    """(records,) scores of the records in folds; empty for an attack on a sample of them."""

    @property
    def name(self) -> str:
        """Access and number of queries, such as "label, 18 queries"."""
        if self.attack != LEARNER:
            return f"label, {self.attack} of {self.records} records, {self.queries} queries"
        return rung_name(self.access, self.queries)

    @property
    def total_queries(self) -> int:
        """Queries of the target for all attacked records."""
        return self.queries * self.records


@dataclass(frozen=True, eq=False)
class AccessLadder:
    """Rungs from the least access to the most that the run has."""

    rungs: tuple[Rung, ...]
    """Empty where there are too few records."""

    reason: str = ""
    """Sentence in place of the rungs; empty where there are some."""

    notes: tuple[str, ...] = ()
    """Sentences on attacks that could not be run."""


def rung_name(access: Access, queries: int) -> str:
    """Return the name of a rung."""
    label = access.replace("probabilities_", "probabilities, decimals ").replace("decimals 2", "2 decimals")
    label = label.replace("decimals 4", "4 decimals").replace("top1", "top-1 probability").replace("topk", "top-k")
    return f"{label}, {queries} {'query' if queries == 1 else 'queries'}"


def access_ladder(
    outputs: Outputs,
    member: NDArray[np.int8],
    fold: NDArray[np.int8],
    *,
    target_access: Access,
    highest: Access,
    references: Mapping[str, NDArray[np.floating]],
    models: int,
    seed: int,
    groups: NDArray[np.generic] | None = None,
) -> AccessLadder:
    """Attack at every level of access up to the run's.

    Args:
        outputs: Unreduced outputs of N records.
        member: (N,) 1 or 0 where the fold is not -1.
        fold: (N,) folds of the run; records in none are left out.
        target_access: Highest level of the target's own outputs, from `outputs.access.highest_access`.
        highest: Level up to which there are rungs; "features" and "references" need their columns.
        references: (N, ...) columns of reference scores; empty without references.
        models: Number of reference models.
        seed: Of learner and bootstrap.
        groups: (N,) group of each record, or None.
    """
    rows = np.flatnonzero(fold != NOT_IN_ANY_FOLD)
    sides = [int((member[rows] == side).sum()) for side in (1, 0)]
    if min(sides) < FEWEST:
        return AccessLadder(
            (),
            f"the access ladder needs at least {FEWEST} members and {FEWEST} non-members, so that a rate of 5% allows "
            f"ten false positives; there are {sides[0]} and {sides[1]}",
        )
    noise = np.random.default_rng(seed).random(len(rows))
    scores: dict[str, NDArray[np.float64]] = {}
    steps: list[tuple[Access, int, Evaluation, float]] = []
    for access, queries, columns in _columns(outputs, target_access, highest, references):
        started = perf_counter()
        computed = columns()
        out_of_fold, stability = _cross_fitted(computed, outputs, rows, member, fold, seed)
        out_of_fold = np.argsort(np.lexsort((noise, out_of_fold))).astype(np.float64)  # ties are broken at random
        name = rung_name(access, queries)
        scores[name] = out_of_fold
        evaluation = evaluate(
            out_of_fold, member[rows], FPRS, groups=None if groups is None else groups[rows], stability=stability
        )
        steps.append((access, queries, evaluation, perf_counter() - started))
    names = list(scores)
    rates = comparable_rates(FPRS, sides[1])
    bootstrap = paired_bootstrap(scores, member[rows], rates, resamples=RESAMPLES, seed=seed)
    gains = differences(bootstrap, pairs=list(zip(names[1:], names[:-1], strict=True))) if len(names) > 1 else ()
    rungs = tuple(
        Rung(
            access,
            queries,
            evaluation,
            tuple(gain for gain in gains if gain.first == rung_name(access, queries)),
            len(rows),
            models if access == "references" else 0,
            seconds,
            scores=scores[rung_name(access, queries)],
        )
        for access, queries, evaluation, seconds in steps
    )
    notes = (NO_TOP,) if outputs.is_multi_label else ()
    return AccessLadder(rungs, notes=notes)


class _Lazy:
    """Columns of one rung, computed when they are needed and then released."""

    def __init__(
        self, outputs: Outputs, access: Access, queries: int, further: Mapping[str, NDArray[np.floating]]
    ) -> None:
        self.outputs, self.access, self.queries, self.further = outputs, access, queries, further

    def __call__(self) -> Columns:
        shown: Access = "logits" if LEVELS.index(self.access) > LEVELS.index("logits") else self.access
        return access_columns(self.outputs, shown, self.queries) | dict(self.further)


def _columns(
    outputs: Outputs, target_access: Access, highest: Access, references: Mapping[str, NDArray[np.floating]]
) -> Iterator[tuple[Access, int, _Lazy]]:
    """Yield access, number of queries and columns of every rung, least access first."""
    all_queries, classes = outputs.logits.shape[1:]
    features = {"features": outputs.features} if outputs.features.shape[1] else {}
    for access in LEVELS[: LEVELS.index(highest) + 1]:
        is_same_as_logits = access == "probabilities" != highest and target_access == "logits"
        if outputs.is_multi_label and (access in ("top1", "topk") or is_same_as_logits):
            continue
        if access == "topk" and classes <= 2:
            continue
        if LEVELS.index(target_access) < LEVELS.index(access) <= LEVELS.index("logits"):
            continue
        if (access == "features" and not features) or (access == "references" and not references):
            continue
        further = features if access == "features" else features | dict(references) if access == "references" else {}
        if further:
            yield access, all_queries, _Lazy(outputs, access, all_queries, further)
            continue
        yield access, 1, _Lazy(outputs, access, 1, {})
        if all_queries > 1 and access in ("label", "probabilities_2", "logits", target_access, highest):
            yield access, all_queries, _Lazy(outputs, access, all_queries, {})


def _cross_fitted(
    columns: Columns,
    outputs: Outputs,
    rows: NDArray[np.intp],
    member: NDArray[np.int8],
    fold: NDArray[np.int8],
    seed: int,
) -> tuple[NDArray[np.float64], float | None]:
    """Return the learner's out-of-fold scores of the rows, and their stability."""
    from mia_lightning.scores.crossfit import cross_fit
    from mia_lightning.signals.table import SignalTable

    selected = {name: np.asarray(column)[rows] for name, column in columns.items()}
    table = SignalTable(selected, outputs.class_indices[rows], outputs.num_classes)
    wide = {name: min(16, column.shape[1]) for name, column in selected.items() if name == "features"}
    attack = learner(len(rows), [name for name in selected if name not in wide], wide)
    result = cross_fit({"ladder": attack}, table, member[rows], fold[rows], seed=seed, stability=True)["ladder"]
    return result.scores, result.stability


def learner(records: int, columns: list[str], wide: dict[str, int]) -> LightGBM:
    """Return the learner of all rungs."""
    from mia_lightning.attacks.lightgbm import LightGBM

    leaf = int(np.clip(records // 50, 5, 100))
    return LightGBM(
        columns=columns, components=wide, n_estimators=100, learning_rate=0.05, num_leaves=15, min_child_samples=leaf
    )
