"""Null tests of references: with membership tied to nothing but the matrix of references, every column is at chance.

The target's phi does not depend on its labeled
membership; references come from a matrix of models of which one is the target, or are drawn by a scheme of the package.

    python benchmarks/honesty.py --only "no label"
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.honesty_parts import Row
from mia_lightning import load_config
from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.attacks.mlp import MLP
from mia_lightning.errors import MIAError
from mia_lightning.metrics.roc import auc, tpr_at_fpr
from mia_lightning.references.columns import reference_columns
from mia_lightning.references.independence import make_independent
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores import ReferenceScore
from mia_lightning.references.scores.per_reference import PerReferenceDifference
from mia_lightning.references.scores.reference_features import ReferenceFeatures
from mia_lightning.references.splits import assign
from mia_lightning.scores.crossfit import assign_folds, cross_fit
from mia_lightning.signals.table import SignalTable

QUERIES = 18
SCENARIOS = ("leave one out of halves", "leave one out of pairs", "leave one out of coins", "balanced", "anchored")
CONFIGURATIONS = (("references", "statistics_mean"), ("few_references", "each_mean"))
"""Shipped configuration, and one of its scores whose columns the heads must read."""


@dataclass(frozen=True, eq=False)
class NullData:
    """References and a membership that neither phi of the target nor, by intent, they depend on."""

    reference_outputs: ReferenceOutputs
    member: NDArray[np.int8]


def null_data(scenario: str, references: int, records: int, seed: int) -> NullData:
    """Simulate records of unequal difficulty, memorization and variance, as imported references arrive."""
    draw = np.random.default_rng((seed, references, records))
    number = int(draw.integers(1 << 30))
    unknown = np.full(records, -1, np.int8)
    total, drawn = references + 1, None
    if scenario.startswith("leave one out"):
        matrix = {
            "halves": lambda: np.argsort(draw.random((total, records)), axis=0) < total // 2,
            "pairs": lambda: assign("balanced", total, unknown, private=0, seed=number).keep,
            "coins": lambda: draw.random((total, records)) < 0.5,
        }[scenario.split()[-1]]()
        member, keep = matrix[0].astype(np.int8), matrix[1:]
    else:
        member = draw.integers(0, 2, records).astype(np.int8)
        assignment = assign(scenario, references, member, private=0, seed=number)  # type: ignore[arg-type]
        keep, drawn = assignment.keep, assignment.drawn
    difficulty, gain = draw.normal(2, 2, (records, 1)), np.abs(draw.normal(1.5, 1, (records, 1)))
    scale = np.exp(draw.normal(0, 0.4, (records, 1)))

    def phi(*models: int) -> NDArray[np.float64]:
        return scale * draw.normal(size=(*models, records, 1)) + 0.3 * draw.normal(size=(*models, records, QUERIES))

    target = difficulty + gain * draw.integers(0, 2, (records, 1)) + phi()
    phi_references = difficulty + gain * keep[..., None] + phi(len(keep))
    labels = draw.integers(0, 10, records)
    return NullData(
        ReferenceOutputs(target.astype(np.float32), phi_references.astype(np.float32), keep, labels, 10, drawn), member
    )


def columns_of(scores: dict[str, ReferenceScore], data: NullData, seed: int) -> dict[str, NDArray[np.float64]]:
    """Return the columns of those scores that the references are enough for, after the checks of an import."""
    independent = make_independent(data.reference_outputs, data.member, seed=seed, source="simulation")
    columns: dict[str, NDArray[np.float64]] = {}
    for name, score in scores.items():
        try:
            columns |= reference_columns({name: score}, independent.reference_outputs)
        except MIAError:  # too few references for this score
            continue
    return columns


def head_aucs(columns: dict[str, NDArray[np.float64]], patterns: list[str], data: NullData) -> dict[str, float]:
    """Return out-of-fold AUCs of LightGBM and an MLP that read phi and the columns a configuration names."""
    phi = data.reference_outputs.target.mean(axis=1).astype(np.float64)
    table = SignalTable({"phi": phi} | columns, data.reference_outputs.labels, 10)
    read = ["phi", *(pattern for pattern in patterns if _picks_any(table, pattern) and pattern != "phi")]
    heads: dict[str, Any] = {
        "LightGBM": LightGBM(columns=read, n_estimators=60, learning_rate=0.1, min_child_samples=40, n_jobs=1),
        "MLP": MLP(columns=read, hidden=[32], epochs=15, batch_size=200, learning_rate=3e-3),
    }
    fold = assign_folds(data.member, folds=5, seed=0)
    fitted = cross_fit(heads, table, data.member, fold, seed=0)
    return {name: float(auc(result.scores, data.member)) for name, result in fitted.items()}


def _picks_any(table: SignalTable, pattern: str) -> bool:
    try:
        return bool(table.match([pattern]))
    except MIAError:
        return False


def configuration(name: str) -> tuple[dict[str, ReferenceScore], list[str]]:
    """Return the reference scores of a shipped configuration and the patterns that its MLP reads."""
    config = load_config(f"configs/{name}.yaml")
    return dict(config.references.scores), list(config.attacks["mlp"].columns)  # type: ignore[attr-defined]


def without_costly_choices(scores: dict[str, ReferenceScore]) -> dict[str, ReferenceScore]:
    """Fix RMIA's gamma, whose choice by the references costs time and reads no label."""
    return {
        name: replace(score, gamma=2.0) if hasattr(score, "gamma") else score  # type: ignore[type-var]
        for name, score in scores.items()
    }


def rows(scenario: str, references: int, repetitions: int, records: int, heads: bool) -> Iterator[Row]:
    """Yield the rows of every shipped configuration, column and head.

    Every repetition draws a target, its membership and its references; all columns and heads share the repetitions.
    """
    measured: dict[str, list[float]] = {}
    for seed in range(repetitions):
        data = null_data(scenario, references, records, seed)
        for name, _ in CONFIGURATIONS:
            scores, patterns = configuration(name)
            columns = columns_of(without_costly_choices(scores), data, seed)
            for column, values in columns.items():
                measured.setdefault(f"{name}.yaml, column {column}", []).append(float(auc(values, data.member)))
            for head, value in (head_aucs(columns, patterns, data) if heads else {}).items():
                measured.setdefault(f"{name}.yaml, {head}", []).append(value)
    yield from _summary(f"{scenario}, K = {references}, n = {records}", measured, records)


def _summary(scenario: str, measured: dict[str, list[float]], records: int) -> Iterator[Row]:
    """Yield the p-value of the number of scores whose mean AUC is beyond 2 standard errors of 0.5.

    Scores of one repetition depend on each other, so that few or many of them miss together. The p-value is the share
    of random signs of the repetitions' deviations, one sign for all scores, that give as many misses or more.
    """
    chance = float(np.sqrt((records + 1) / 3) / records)  # standard deviation of one AUC under the null
    deviations = np.array(list(measured.values())) - 0.5  # (scores, repetitions)
    repetitions = deviations.shape[1]
    spread = deviations.std(axis=1, ddof=1) if repetitions > 1 else np.zeros(len(deviations))
    errors = np.maximum(spread, chance) / np.sqrt(repetitions)  # the spread of few repetitions is uncertain
    signs = np.random.default_rng(0).choice([-1, 1], (repetitions, 10_000))
    misses = int((abs(deviations.mean(axis=1)) > 2 * errors).sum())
    drawn = (abs(deviations @ signs / repetitions) > 2 * errors[:, None]).sum(axis=0)
    p_value = float((1 + (drawn >= misses).sum()) / (1 + len(drawn)))
    text = f"{scenario}, {misses} of {len(deviations)} columns and heads beyond 2 s.e."
    yield Row("no label through references: p-value", text, p_value, 0.0, 0.01, 1.0)


def power(references: int, repetitions: int, records: int = 2000) -> Iterator[Row]:
    """Yield AUC and TPR@5% of LightGBM on columns without counts, and what flags and numbers of references would add.

    Membership is that of the target here, and references are balanced, drawn without regard to it: there the flags
    IN of every reference, from which the columns keep away, are no leak.
    """
    gains: dict[str, list[float]] = {}
    for seed in range(repetitions):
        draw = np.random.default_rng((13, references, seed))
        member = draw.integers(0, 2, records).astype(np.int8)
        unknown = np.full(records, -1, np.int8)
        keep = assign("balanced", references, unknown, private=0, seed=seed).keep
        difficulty, gain = draw.normal(2, 2, records), np.abs(draw.normal(1.5, 1, records))
        target = (difficulty + gain * member + draw.normal(size=records))[:, None].astype(np.float32)
        phi = (difficulty + gain * keep + draw.normal(size=keep.shape))[..., None].astype(np.float32)
        outputs = ReferenceOutputs(target, phi, keep, np.zeros(records, np.int64), 1, None)
        flags = {f"in{k}": row.astype(np.float64) for k, row in enumerate(keep)}
        flags |= {f"gap{k}": (target - phi[k])[:, 0].astype(np.float64) for k in range(references)}
        for name, score in (
            ("PerReferenceDifference", PerReferenceDifference()),
            ("ReferenceFeatures", ReferenceFeatures()),
        ):
            columns = {"phi": target[:, 0].astype(np.float64)} | reference_columns({"s": score}, outputs)
            for label, table in ((name, columns), (f"{name}, and flags and gaps by number", columns | flags)):
                attack = LightGBM(columns=["*"], n_estimators=60, learning_rate=0.1, min_child_samples=40, n_jobs=1)
                fold = assign_folds(member, folds=5, seed=0)
                signals = SignalTable(table, np.zeros(records, np.int64), 1)
                scores = cross_fit({"a": attack}, signals, member, fold, seed=0)["a"].scores
                gains.setdefault(f"AUC, {label}", []).append(float(auc(scores, member)))
                gains.setdefault(f"TPR@5%, {label}", []).append(tpr_at_fpr(scores, member, 0.05))
    for name, values in gains.items():
        error = float(np.std(values, ddof=1) / np.sqrt(repetitions))
        yield Row(f"power: {name}", f"K = {references}, n = {records:,}", float(np.mean(values)), error)
