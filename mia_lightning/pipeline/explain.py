"""Explanation of a run's figures and the methods behind them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack
from mia_lightning.config.class_paths import components
from mia_lightning.config.schema import RunConfig
from mia_lightning.evaluation.explanation import (
    Explanation,
    RecordPhi,
    columns_alone,
    permutation_importance,
    phi_of_records,
    reliability,
)
from mia_lightning.pipeline.results import AuditResult
from mia_lightning.references.scores.base import ReferenceScore
from mia_lightning.report.methods import Method, method, not_run
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD
from mia_lightning.signals import find_signal
from mia_lightning.signals.table import SignalTable

SHOWN_RECORDS = 2
"""Records of each kind whose phi under the reference models is shown."""


def explain(result: AuditResult, columns: Iterable[str], fprs: Iterable[float]) -> Explanation:
    """Return the explanation of a run's out-of-fold figures.

    Args:
        result: From `attack_target`.
        columns: Columns that the attacks read.
        fprs: False-positive rates of the figures of each column alone.
    """
    rows = np.flatnonzero(result.public.fold != NOT_IN_ANY_FOLD)
    member, groups, table = result.public.membership[rows], result.public.groups, result.table.rows(rows)
    read = {name: table.columns[name] for name in columns}
    scores = result.config.references.all_scores
    signals = {name: find_signal(name) for name in read if name not in scores}
    directions = {name: 1 for name in read} | {name: s.direction if s else 0 for name, s in signals.items()}
    alone = columns_alone(read, directions, member, fprs, None if groups is None else groups[rows])
    best = next(iter(alone), None)
    return Explanation(
        columns=alone,
        importance=_importance(result, table, member, result.public.fold[rows]),
        reliability={
            name: reliability(attack.public_probabilities[rows], member) for name, attack in result.attacks.items()
        },
        raw=None if best is None else (best, np.asarray(read[best], np.float64)),
        phi=_phi(result, rows),
    )


def _importance(
    result: AuditResult, table: SignalTable, member: NDArray[np.int8], fold: NDArray[np.int8]
) -> dict[str, dict[str, float]]:
    """Return the importance for each trainable attack that reads several columns and no earlier attack."""
    importance = {}
    for name, attack in result.config.attacks.items():
        patterns = attack.required_columns()
        if attack.is_trainable and not set(patterns) & set(result.config.attacks) and len(table.match(patterns)) > 1:
            importance[name] = permutation_importance(attack, table, member, fold, seed=result.config.seed)
    return importance


def _phi(result: AuditResult, rows: NDArray[np.intp]) -> tuple[RecordPhi, ...]:
    """Return the highest and the lowest scored members, and the highest scored non-members."""
    if result.reference_outputs is None:
        return ()
    scores = result.attacks[result.config.submitted].public_scores[rows]
    member = result.public.membership[rows]
    order = np.argsort(-scores, kind="stable")
    members, non_members = order[member[order] == 1], order[member[order] == 0]
    shown = [*members[:SHOWN_RECORDS], *non_members[:SHOWN_RECORDS], *members[-SHOWN_RECORDS:]]
    selected = [int(rows[row]) for row in dict.fromkeys(shown)]
    return phi_of_records(result.reference_outputs, selected, result.public.ids, result.public.membership)


def methods_of(result: AuditResult, columns: Iterable[str]) -> tuple[Method, ...]:
    """Return the description of every attack, and of the signals and scores that they read."""
    config = result.config
    attacks = [method(name, type(attack), result.attacks[name].seconds) for name, attack in config.attacks.items()]
    scores = [method(name, type(score)) for name, score in config.references.all_scores.items()]
    signals = [method(name, signal) for name in columns if (signal := find_signal(name)) is not None]
    return (*attacks, *(scores if result.reference_sets else ()), *signals)


def methods_not_run(config: RunConfig) -> tuple[tuple[str, str, str], ...]:
    """Return name, sentence and reason of the attacks and reference scores of this package that were not run."""
    missing = "not configured" if config.references.wanted else "needs reference models (--references.count)"
    candidates = dict.fromkeys(components(Attack), "not configured") | dict.fromkeys(
        components(ReferenceScore), missing
    )
    used: set[type] = {type(attack) for attack in config.attacks.values()}
    if config.references.wanted:
        used |= {type(score) for score in config.references.all_scores.values()}
    return not_run(used, candidates)
