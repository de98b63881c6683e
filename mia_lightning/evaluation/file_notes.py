"""Notes on how a file of records was made: associations of row order and ids with membership.

Neither is a property of a record, and no attack reads them. They do not enter the verdict; they show that members and
non-members were collected, named or stored apart, which is where other differences come from.
"""

import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.blind_baseline import blind_scores, chance_p_values, of_doubled_variance
from mia_lightning.evaluation.column_audit import association_p_value
from mia_lightning.metrics.ranks import Array
from mia_lightning.metrics.roc import evaluate
from mia_lightning.scores.scored_records import ScoredRecords

LEVEL = 0.001
"""Probability of a note of one kind where neither row order nor ids are associated with membership."""

MOST_ROWS = 20_000
"""Most records that a model of ids is fitted on."""

FOLDS = 5
MOST_WORDS = 30
MOST_NUMBERS = 8


def file_notes(records: ScoredRecords, *, seed: int) -> tuple[str, ...]:
    """Return a sentence for each of row order and ids that is associated with membership.

    Row order: a runs test (Wald & Wolfowitz 1940), exact moments and normal p-value, two-sided, which sorted,
    alternating and blocked files fail. Ids: a chi-squared test for each word, file extension, parity and length, and a
    cross-fitted model of all their parts, Bonferroni over all.

    Args:
        records: N records in the order of the file.
        seed: Random seed of the model's folds.
    """
    member = np.asarray(records.membership)
    if min(int((member == 1).sum()), int((member == 0).sum())) < 10:
        return ()
    notes = []
    p_value = runs_p_value(member)
    if p_value < LEVEL:
        notes.append(
            f"Row order is associated with membership (runs test, n = {len(member):,}, p = {p_value:.1g}): the file is "
            "sorted, grouped or alternating by membership. This is how the file was made; it does not enter the "
            "verdict."
        )
    if records.ids.dtype.kind in "iu" and (np.diff(records.ids) == 1).all():  # numbers of rows
        return tuple(notes)
    part, p_value = _ids(records, member, seed)
    if p_value < LEVEL:
        notes.append(
            f"Ids are associated with membership (mostly {part}; n = {len(member):,}, p = {p_value:.1g}): members and "
            "non-members were named or collected differently. This does not enter the verdict; give what the ids "
            "encode (a camera, a date, a file format) as a covariate if it could have shaped the records."
        )
    return tuple(notes)


def runs_p_value(member: NDArray[np.integer]) -> float:
    """Return the two-sided p-value of the number of runs of equal membership, (N,) 1 or 0 in the order of the rows."""
    from scipy.special import ndtr

    n, positive = len(member), int((member == 1).sum())
    negative = n - positive
    runs = 1 + int((np.diff(member) != 0).sum())
    mean = 1 + 2 * positive * negative / n
    variance = (mean - 1) * (mean - 2) / (n - 1)
    return float(2 * ndtr(-abs(runs - mean) / np.sqrt(variance))) if variance > 0 else 1.0


def id_features(ids: NDArray[np.int64] | NDArray[np.str_]) -> dict[str, Array]:
    """Return the parts of ids by name, (N,) each: numbers, parity, alphabetical rank, length, letter case and words."""
    if ids.dtype.kind in "iu":
        numbers = ids.astype(np.int64)
        return {"numbers": numbers.astype(np.float64), "even numbers": (numbers % 2 == 0).astype(np.float64)}
    texts: list[str] = ids.tolist()
    rank = np.empty(len(ids))
    rank[np.argsort(ids, kind="stable")] = np.arange(len(ids))
    features = {
        "alphabetical order": rank,
        "length": np.array([len(text) for text in texts], dtype=np.float64),
        "upper case": np.array([sum(map(str.isupper, text)) for text in texts], dtype=np.float64),
    }
    parts = [[float(number[:15]) for number in re.findall(r"\d+", text)] for text in texts]
    for position in range(min(MOST_NUMBERS, max(map(len, parts), default=0))):
        features[f"number {position + 1}"] = np.array([row[position] if len(row) > position else -1.0 for row in parts])
    last = np.array([row[-1] if row else -1.0 for row in parts])
    features["last number"] = last
    features["even numbers"] = (last % 2 == 0).astype(np.float64)
    words = [frozenset(re.findall(r"[A-Za-z]+\d?(?![A-Za-z0-9])|[A-Za-z]+", text)) for text in texts]
    common = Counter(word for row in words for word in row).most_common(MOST_WORDS)
    for word, count in common:
        if 10 <= count <= len(texts) - 10:
            features[f"the word {word!r}"] = np.array([word in row for row in words], dtype=np.float64)
    return features


def _ids(records: ScoredRecords, member: NDArray[np.int8], seed: int) -> tuple[str, float]:
    """Return the part of the ids with the smallest p-value, and that p-value, adjusted."""
    order = np.argsort(records.ids, kind="stable")  # ids are unique: the same rows whatever their order in the file
    if len(order) > MOST_ROWS:
        order = np.sort(np.random.default_rng(seed).choice(order, MOST_ROWS, replace=False))
        order = order[np.argsort(records.ids[order], kind="stable")]
    member, features = member[order], id_features(records.ids[order])
    if len(np.unique(member)) < 2 or min(np.bincount(member)) < FOLDS:
        return "", 1.0
    p_values = {"their order": runs_p_value(member)}
    p_values |= {name: association_p_value(values, member) for name, values in features.items()}
    scores = blind_scores(np.stack(list(features.values()), axis=1), member, folds=FOLDS, seed=seed)
    evaluation = evaluate(scores, member, ())
    whole = of_doubled_variance(chance_p_values(evaluation)[0])
    best = min(p_values, key=lambda name: p_values[name])
    return best, min(1.0, min([*p_values.values(), whole]) * (len(p_values) + 1))
