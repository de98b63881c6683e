"""Blind baseline: a model of membership from what is known of a record without the target.

It reads what any scorer could read of the record itself: pixels, label and named covariates. Row order and ids describe
the file, not the record; they are the subject of `file_notes`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.assessment import Difference, SanityCheck
from mia_lightning.evaluation.comparison import comparable_rates
from mia_lightning.evaluation.pixel_features import Images, pixel_features
from mia_lightning.metrics.ranks import Array
from mia_lightning.metrics.roc import Evaluation, evaluate
from mia_lightning.scores.crossfit import assign_folds
from mia_lightning.scores.scored_records import ScoredRecords

BLIND = "blind baseline"

BLIND_ROWS = 50_000
"""Most rows that a blind model is fitted on; more change its figures little."""

BLIND_LEVEL = 0.01
"""Probability of a warning, over all its figures, where members and non-members are alike."""

MANY_NUMBERS = 32
"""Distinct values of a covariate that small trees separate one by one."""

Groups = Mapping[str, Array]


def blind_features(
    records: ScoredRecords,
    *,
    pixels: Images | None = None,
    features: Mapping[str, Array] | None = None,
    columns: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Return what is known of the records without the target, by source: (N, F) each; empty where there is nothing.

    Args:
        records: Labels are read, ids and the order of the rows are not.
        pixels: (N, C, H, W), or None.
        features: `pixel_features(pixels)`, where they are computed already.
        columns: Covariates by name, (N,) each.
    """
    groups: dict[str, Array] = {}
    if records.labels is not None:
        _, index, count = np.unique(records.labels, return_inverse=True, return_counts=True)
        groups["label"] = np.stack([records.labels.astype(np.float64), count[index].astype(np.float64)], axis=1)
    if pixels is not None or features is not None:
        values = pixel_features(pixels) if features is None and pixels is not None else features or {}
        groups["pixels"] = np.stack(list(values.values()), axis=1)
    return groups | {name: _covariate(np.asarray(values, dtype=np.float64)) for name, values in (columns or {}).items()}


def _covariate(values: Array) -> Array:
    """Return a covariate as (N, F) features; that of many whole numbers includes their parity, as of numbered files."""
    whole = bool((values == np.rint(values)).all()) and len(np.unique(values)) > MANY_NUMBERS
    return np.stack([values, np.mod(values, 2)], axis=1) if whole else values[:, None]


def blind_scores(
    features: Array, member: NDArray[np.int8], *, folds: int, seed: int, groups: NDArray[np.generic] | None = None
) -> Array:
    """Return (N,) out-of-fold log-odds of membership from features alone.

    The sum of a LightGBM model with few small trees and of a logistic regression on normal scores of the features: the
    trees find marks and thresholds, the regression small shifts of many features. Folds are stratified by membership.

    Args:
        features: (N, F) finite.
        member: (N,) 1 or 0.
        folds: At least 2.
        seed: Random seed of the folds and of the rows that are fitted on where there are more than `BLIND_ROWS`.
        groups: (N,) group of each record, which stays in one fold; None = independent records.

    Raises:
        MIAError: fewer members or non-members, or fewer groups of either, than folds.
    """
    rng = np.random.default_rng(seed)
    fold = assign_folds(member, folds=folds, seed=seed, groups=groups)
    scores = np.empty(len(member))
    for held_out in range(folds):
        rows = np.flatnonzero(fold != held_out)
        if len(rows) > BLIND_ROWS:
            rows = np.sort(rng.choice(rows, BLIND_ROWS, replace=False))
        new = features[fold == held_out]
        scores[fold == held_out] = _trees(features[rows], member[rows], new, seed) + _linear(
            features[rows], member[rows], new
        )
    return scores


def _trees(features: Array, member: NDArray[np.int8], new: Array, seed: int) -> Array:
    from lightgbm import LGBMClassifier  # slow to import

    model = LGBMClassifier(
        n_estimators=60,
        num_leaves=8,
        learning_rate=0.1,
        min_child_samples=max(5, min(100, len(features) // 50)),
        reg_lambda=1.0,
        subsample_for_bin=BLIND_ROWS,
        random_state=seed,
        deterministic=True,
        n_jobs=1,  # waiting for threads costs more than they gain on few rows
        force_row_wise=True,
        verbose=-1,
    )
    model.fit(features, member)
    return np.asarray(model.booster_.predict(new, raw_score=True), dtype=np.float64)


def _linear(features: Array, member: NDArray[np.int8], new: Array) -> Array:
    from sklearn.linear_model import LogisticRegression

    fitted, applied = _normal_scores(features, features), _normal_scores(features, new)
    model = LogisticRegression(C=0.03, max_iter=300).fit(fitted, member)
    return np.asarray(model.decision_function(applied), dtype=np.float64)


def _normal_scores(reference: Array, values: Array) -> Array:
    """Return (M, F) normal quantiles of each value's midrank among the reference's column."""
    from scipy.special import ndtri

    result = np.empty_like(values)
    for column in range(values.shape[1]):
        ranked = np.sort(reference[:, column])
        rank = sum(np.searchsorted(ranked, values[:, column], side=side) for side in ("left", "right"))
        result[:, column] = ndtri((np.asarray(rank) + 1) / (2 * len(ranked) + 2))
    return result


def combined_scores(
    blind: Array,
    scores: Array,
    member: NDArray[np.int8],
    *,
    folds: int,
    seed: int,
    groups: NDArray[np.generic] | None = None,
) -> Array:
    """Return (N,) out-of-fold log-odds of membership from the blind baseline's scores and an attack's together.

    A logistic regression on the blind log-odds, the normal scores of the attack and their square; what it gains over
    the blind baseline is what the attack adds.

    Args:
        blind: (N,) from `blind_scores`.
        scores: (N,) of the attack.
        member: (N,) 1 or 0.
        folds: At least 2.
        seed: Random seed of the folds.
        groups: (N,) group of each record, which stays in one fold; None = independent records.
    """
    from sklearn.linear_model import LogisticRegression

    ranks = _normal_scores(scores[:, None], scores[:, None])[:, 0]  # no membership is read
    spread = float(blind.std())
    features = np.stack([blind / spread if spread > 0 else blind, ranks, ranks**2], axis=1)
    fold = assign_folds(member, folds=folds, seed=seed + 1, groups=groups)
    result = np.empty(len(member))
    for held_out in range(folds):
        rows = fold != held_out
        model = LogisticRegression(C=10.0, max_iter=300).fit(features[rows], member[rows])
        result[~rows] = model.decision_function(features[~rows])
    return result


def blind_baseline(
    records: ScoredRecords, groups: Groups, scores: Array, *, folds: int, seed: int, increments: Sequence[Difference]
) -> SanityCheck:
    """Check whether membership can be predicted without the target, from which source, and what attacks add to it.

    It warns where chance would reach the AUC, or one of the TPRs (at rates that allow at least ten false positives), in
    fewer than 1% of cases, all figures together (Bonferroni). Scores of a model fitted across folds depend on each
    other: the score of one record grows with the membership of another, and that one's score with the first's. Every
    such pair counts twice, so that the variance is up to twice that of independent scores; the p-values are of half
    the squared deviation (measured in `benchmarks/blind.py`).

    Args:
        records: N records.
        groups: From `blind_features`, not empty.
        scores: (N,) from `blind_scores` on all of them.
        folds: Number of folds for the sources on their own.
        seed: Random seed for the sources on their own.
        increments: Attack and blind baseline together minus blind baseline alone, from `comparison.differences`.
    """
    rates = comparable_rates((0.01, 0.05), int((records.membership == 0).sum()))
    if records.groups is not None:
        rates = []  # the p-value of a TPR is for independent records
    independent = evaluate(scores, records.membership, rates, groups=records.groups)
    p_values = [of_doubled_variance(p) for p in chance_p_values(independent)]
    evaluation = evaluate(scores, records.membership, rates, groups=records.groups, stability=0.0)
    beats = min(p_values) * len(p_values) < BLIND_LEVEL
    details: dict[str, float | int | str] = {
        "auc": evaluation.auc,
        "auc_low": evaluation.auc_low,
        "auc_high": evaluation.auc_high,
        "p": min(1.0, min(p_values) * len(p_values)),
    }
    details |= {f"tpr@{point.fpr:g}": point.tpr for point in evaluation.points}
    for gain in increments:
        details[f"{gain.first} over blind, {gain.figure}"] = gain.value
        details[f"{gain.first} over blind, {gain.figure}, 95%"] = f"{gain.low:.4f} to {gain.high:.4f}"
    sources = ", ".join(groups)
    p_value = min(1.0, min(p_values) * len(p_values))
    figure = (
        f"AUC {evaluation.auc:.3f} [{evaluation.auc_low:.3f}–{evaluation.auc_high:.3f}], n = {len(scores):,}, "
        f"p {'< 1e-10' if p_value < 1e-10 else f'= {p_value:.2g}'}"
    )
    if not beats:
        sentence = f"A model of {sources}, without the target, does not separate members from non-members: {figure}."
        return SanityCheck(BLIND, "pass", sentence, details)
    alone = _sources_alone(records, groups, folds, seed)
    details |= {f"auc of {name} alone": value.auc for name, value in alone.items()}
    best = max(alone, key=lambda name: alone[name].auc)
    points = zip(evaluation.points, p_values[1:], strict=True)
    raised = [point for point, p in points if p * len(p_values) < BLIND_LEVEL]
    tprs = "".join(f", TPR {p.tpr:.2%} at FPR {p.fpr:.0%}" for p in raised)
    sentence = (
        f"Members differ from non-members even without the model: {sources} alone reach {figure}{tprs}, most of it "
        f"from {best} (AUC {alone[best].auc:.3f} alone). Only what an attack adds to this is about the model."
    )
    return SanityCheck(BLIND, "warn", sentence, details)


def chance_p_values(evaluation: Evaluation) -> list[float]:
    """Return one-sided p-values of the AUC (normal, its standard error) and of each TPR against a random ranking.

    Under a random order at least m members are above the (k+1)-th highest non-member exactly if the highest m + k
    records contain at most k non-members, which is hypergeometric.
    """
    from scipy.special import ndtr
    from scipy.stats import hypergeom

    total = evaluation.n_members + evaluation.n_non_members
    error = max(evaluation.auc_standard_error, 1e-12)
    p_values = [float(ndtr((0.5 - evaluation.auc) / error))]
    for point in evaluation.points:
        above, allowed = round(point.tpr * evaluation.n_members), point.false_positives
        p_values.append(float(hypergeom.cdf(allowed, total, evaluation.n_non_members, above + allowed)))
    return p_values


def of_doubled_variance(p_value: float) -> float:
    """Return the p-value of the same deviation, were its variance twice as large; see `blind_baseline`."""
    from scipy.special import ndtr, ndtri

    return float(ndtr(ndtri(p_value) / np.sqrt(2)))


def _sources_alone(records: ScoredRecords, groups: Groups, folds: int, seed: int) -> dict[str, Evaluation]:
    rng = np.random.default_rng(seed)
    rows = np.arange(len(records.membership))
    if len(rows) > BLIND_ROWS and records.groups is None:
        rows = np.sort(rng.choice(rows, BLIND_ROWS, replace=False))
    member, people = records.membership[rows], None if records.groups is None else records.groups[rows]
    return {
        name: evaluate(
            blind_scores(group[rows], member, folds=folds, seed=seed, groups=people),
            member,
            (),
            groups=people,
            stability=0.0,
        )
        for name, group in groups.items()
    }
