"""Scores of every attack of the table on one target."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks import Attack
from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.attacks.quantile import QuantileRegression
from mia_lightning.benchmarking.pool import BenchmarkPool
from mia_lightning.config.benchmark import BenchmarkConfig
from mia_lightning.errors import MIAError
from mia_lightning.references.columns import score_columns
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.head import ReferenceHead
from mia_lightning.references.scores.per_reference import PerReferenceDifference
from mia_lightning.references.scores.reference_features import ReferenceFeatures
from mia_lightning.references.standard_scores import standard_scores
from mia_lightning.references.target_pool import TargetPool
from mia_lightning.scores.crossfit import assign_folds, cross_fit
from mia_lightning.signals.table import SignalTable

log = logging.getLogger(__name__)

FEWEST_FOR_HEAD = 4
"""References from which one can be compared with others, its complement left out."""

Array = NDArray[np.float64]
Row = tuple[str, int, Array, float]
"""Attack, number of references, (N,) scores and the seconds that they took."""


def chosen_references(pool: TargetPool, target: int, count: int) -> ReferenceOutputs | None:
    """Return one model as the target with some others as its references; None where that is not possible.

    The training records of these references are independent of the target's: all others (see `TargetPool`), other
    complementary pairs, or the first others of models whose records were drawn independently.
    """
    everything = pool.of_target(target)
    if count >= available(pool):
        return everything if count == available(pool) else None
    if pool.partner is not None and not pool.mate(target):
        return None
    index = np.arange(count)  # pairs stay together
    drawn = None if everything.drawn is None else everything.drawn[index]
    return replace(everything, references=everything.references[index], keep=everything.keep[index], drawn=drawn)


def available(pool: TargetPool) -> int:
    """Return the number of references of a target that uses all it may."""
    return len(pool) - 1 - len(pool.mate(0))


def scores_of_target(
    config: BenchmarkConfig, models: BenchmarkPool, pool: TargetPool, target: int, counts: tuple[int, ...]
) -> Iterator[Row]:
    """Yield the scores of every attack on one target, first without references, then with each number of them.

    Attacks that need more references than there are yield nothing.
    """
    member = pool.keep[target].astype(np.int8)
    phi = np.asarray(pool.outputs.references[target], np.float64)
    yield "Attack P", 0, phi.mean(axis=1), 0.0
    table = _table(models, phi)
    fold = assign_folds(member, folds=config.folds, seed=config.seed)
    if config.heads:
        if models.features is not None:
            quantiles = QuantileRegression(column="phi", columns=["features"])
            yield _fitted("quantile regression", 0, quantiles, table, member, fold, config.seed)
        yield _fitted("LightGBM", 0, _trees("phi*"), table, member, fold, config.seed)
    for count in counts:
        outputs = chosen_references(pool, target, count)
        if outputs is None:
            continue
        for name, score in standard_scores().items():
            started = perf_counter()
            try:
                values = score_columns(score, outputs)[""]
            except MIAError as error:
                log.debug("%s with %d references: %s", name, count, error)
                continue
            yield name, count, values, perf_counter() - started
        if config.heads:
            yield from _heads(count, outputs, table, member, fold, config.seed)


def _heads(
    count: int,
    outputs: ReferenceOutputs,
    table: SignalTable,
    member: NDArray[np.int8],
    fold: NDArray[np.int8],
    seed: int,
) -> Iterator[Row]:
    started = perf_counter()
    try:
        source = ReferenceFeatures() if count > 2 else PerReferenceDifference()
        columns = {f"reference_{suffix}": values for suffix, values in score_columns(source, outputs).items()}
    except MIAError:
        return
    seconds = perf_counter() - started
    trees = _trees("phi*", "reference_*")
    name, _, values, fitting = _fitted("LightGBM", count, trees, table.with_columns(columns), member, fold, seed)
    yield name, count, values, seconds + fitting
    if count < FEWEST_FOR_HEAD:
        return
    started = perf_counter()
    try:
        values = score_columns(ReferenceHead(), outputs)[""]
    except MIAError:
        return
    yield "head across references", count, values, perf_counter() - started


def _table(models: BenchmarkPool, phi: Array) -> SignalTable:
    columns: dict[str, NDArray[np.floating]] = {"phi": phi.mean(axis=1)}
    if phi.shape[1] > 1:
        columns |= {"phi_original": phi[:, 0], "phi_std": phi.std(axis=1), "phi_min": phi.min(axis=1)}
    if models.features is not None:
        columns["features"] = models.features
    return SignalTable(columns, models.outputs.labels, models.outputs.num_classes)


def _trees(*columns: str) -> LightGBM:
    return LightGBM(columns=list(columns), n_estimators=100, learning_rate=0.08, n_jobs=1)


def _fitted(
    name: str,
    count: int,
    attack: Attack,
    table: SignalTable,
    member: NDArray[np.int8],
    fold: NDArray[np.int8],
    seed: int,
) -> Row:
    fitted = cross_fit({name: attack}, table, member, fold, seed=seed)[name]
    return name, count, fitted.scores, fitted.seconds
