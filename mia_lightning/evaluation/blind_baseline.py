"""Checks that the figures mean what they seem to mean: run beside every assessment, none of them asks the target.

A guard that warns does not change a figure; it says what else could have made it.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.assessment import Difference, SanityCheck
from mia_lightning.evaluation.comparison import comparable_rates
from mia_lightning.evaluation.guards import Array
from mia_lightning.metrics.roc import Evaluation, evaluate
from mia_lightning.records.pixel_statistics import pixel_statistics
from mia_lightning.scores.crossfit import assign_folds
from mia_lightning.scores.scored_records import ScoredRecords

BLIND = "blind baseline"


BLIND_ROWS = 50_000
"""Most rows that a blind model is fitted on; more change its figures little."""


BLIND_LEVEL = 0.01
"""Probability, over all its figures, at which the blind baseline warns: a banner on every tenth run is not read."""


Groups = Mapping[str, Array]


def blind_features(
    records: ScoredRecords,
    *,
    pixels: NDArray[np.uint8] | NDArray[np.float32] | None = None,
    columns: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Return what is known of the records without the target, by source: (N, F) each.

    Args:
        records: Gives ids, order and labels.
        pixels: (N, C, H, W), or None.
        columns: Further columns by name, (N,) each.
    """
    groups = {"row order": np.linspace(0, 1, len(records.ids))[:, None], "id": _id_features(records.ids)}
    if records.labels is not None:
        _, place, count = np.unique(records.labels, return_inverse=True, return_counts=True)
        groups["label"] = np.stack([records.labels.astype(np.float64), count[place].astype(np.float64)], axis=1)
    if pixels is not None:
        groups["pixels"] = np.stack(list(pixel_statistics(pixels).values()), axis=1)
    return groups | {name: np.asarray(values, dtype=np.float64)[:, None] for name, values in (columns or {}).items()}


def blind_scores(features: Array, member: NDArray[np.int8], *, folds: int, seed: int) -> Array:
    """Return (N,) log-odds of membership from features alone, each row by a model that never saw it.

    The folds are stratified by membership as those of the attacks are; the model is LightGBM with few small trees.

    Args:
        features: (N, F) finite.
        member: (N,) 1 or 0.
        folds: At least 2.
        seed: Drives the folds, and which rows are fitted on where there are more than enough.

    Raises:
        MIAError: fewer members or non-members than folds.
    """
    from lightgbm import LGBMClassifier  # slow to import

    rng = np.random.default_rng(seed)
    fold = assign_folds(member, folds=folds, seed=seed)
    scores = np.empty(len(member))
    for held_out in range(folds):
        rows = np.flatnonzero(fold != held_out)
        if len(rows) > BLIND_ROWS:
            rows = np.sort(rng.choice(rows, BLIND_ROWS, replace=False))
        model = LGBMClassifier(
            n_estimators=60,
            num_leaves=8,
            learning_rate=0.1,
            min_child_samples=max(5, min(100, len(rows) // 50)),
            reg_lambda=1.0,
            subsample_for_bin=BLIND_ROWS,
            random_state=seed,
            deterministic=True,
            n_jobs=1,  # so few rows lose more by waiting for threads than they gain
            force_row_wise=True,
            verbose=-1,
        )
        model.fit(features[rows], member[rows])
        scores[fold == held_out] = model.booster_.predict(features[fold == held_out], raw_score=True)
    return scores


def blind_baseline(
    records: ScoredRecords, groups: Groups, scores: Array, *, folds: int, seed: int, increments: Sequence[Difference]
) -> SanityCheck:
    """Say whether membership can be told without the target, from what, and what attacks add to it.

    It warns where chance would reach the AUC, or one of the TPRs (at rates that allow at least ten false positives), in
    fewer than 1% of cases, all figures together (Bonferroni). Scores of a model fitted across folds depend on each
    other: the score of one record grows with the membership of another, and that one's score with the first's. Every
    such pair counts twice, so that the variance is up to twice that of independent scores; the p-values are of half
    the squared deviation. Of 400 data sets without a difference it warned in 1% (300 records) and 0.25% (1,500), where
    p-values for independent scores would have in 3.5% and 2.5% (`benchmarks/blind.py`).

    Args:
        records: N records.
        groups: From `blind_features`.
        scores: (N,) from `blind_scores` on all of them.
        folds: For the sources on their own.
        seed: Likewise.
        increments: Attack minus blind baseline, from `comparison.differences`.
    """
    found = evaluate(scores, records.membership, comparable_rates((0.01, 0.05), int((records.membership == 0).sum())))
    p_values = [_of_doubled_variance(p) for p in _chance_p_values(found)]
    beats = min(p_values) * len(p_values) < BLIND_LEVEL
    raised = [point for point, p in zip(found.points, p_values[1:], strict=True) if p * len(p_values) < BLIND_LEVEL]
    details: dict[str, float | int | str] = {"auc": found.auc, "auc_low": found.auc_low, "auc_high": found.auc_high}
    details |= {f"tpr@{point.fpr:g}": point.tpr for point in found.points}
    for gain in increments:
        details[f"{gain.first} over blind, {gain.figure}"] = gain.value
        details[f"{gain.first} over blind, {gain.figure}, 95%"] = f"{gain.low:.4f} to {gain.high:.4f}"
    sources = ", ".join(groups)
    figure = f"AUC {found.auc:.3f} ({found.auc_low:.3f}-{found.auc_high:.3f}, n = {len(scores):,})"
    if not beats:
        sentence = f"Without the target, {sources} do not tell members from non-members: {figure}."
        return SanityCheck(BLIND, "pass", sentence, details)
    alone = _sources_alone(records.membership, groups, folds, seed)
    details |= {f"auc of {name} alone": value.auc for name, value in alone.items()}
    best = max(alone, key=lambda name: alone[name].auc)
    rates = "".join(f", TPR {p.tpr:.2%} at FPR {p.fpr:.0%}" for p in raised)
    sentence = (
        f"Members differ from non-members without the target: a model of {sources} reaches {figure}{rates}, most of it "
        f"from {best} (AUC {alone[best].auc:.3f} alone). Only what an attack adds to this says anything of the target."
    )
    return SanityCheck(BLIND, "warn", sentence, details)


def _chance_p_values(found: Evaluation) -> list[float]:
    """Return one-sided p-values of the AUC (normal, DeLong's error) and of each TPR against a ranking by lot.

    Under a random order at least m members stand above the (k+1)-th highest non-member exactly if the highest m + k
    records hold at most k non-members, which is hypergeometric.
    """
    from scipy.special import ndtr
    from scipy.stats import hypergeom

    total = found.n_members + found.n_non_members
    error = max(found.auc_standard_error, 1e-12)
    p_values = [float(ndtr((0.5 - found.auc) / error))]
    for point in found.points:
        above, allowed = round(point.tpr * found.n_members), point.false_positives
        p_values.append(float(hypergeom.cdf(allowed, total, found.n_non_members, above + allowed)))
    return p_values


def _of_doubled_variance(p_value: float) -> float:
    """Return the p-value of the same deviation, were its variance twice as large; see `blind_baseline`."""
    from scipy.special import ndtr, ndtri

    return float(ndtr(ndtri(p_value) / np.sqrt(2)))


def _sources_alone(member: NDArray[np.int8], groups: Groups, folds: int, seed: int) -> dict[str, Evaluation]:
    rng = np.random.default_rng(seed)
    rows = np.arange(len(member))
    if len(rows) > BLIND_ROWS:
        rows = np.sort(rng.choice(rows, BLIND_ROWS, replace=False))
    member = member[rows]
    return {
        name: evaluate(blind_scores(group[rows], member, folds=folds, seed=seed), member, ())
        for name, group in groups.items()
    }


def _id_features(ids: NDArray[np.int64] | NDArray[np.str_]) -> Array:
    """Return (N, 1) the number, or (N, 3) rank in alphabetical order, length and last number of a text."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.float64)[:, None]
    rank = np.empty(len(ids))
    rank[np.argsort(ids, kind="stable")] = np.arange(len(ids))
    numbers = [re.findall(r"\d+", text)[-1:] for text in ids.tolist()]
    last = [float(found[0][:15]) if found else -1.0 for found in numbers]
    return np.stack([rank, np.array([len(text) for text in ids.tolist()], dtype=np.float64), np.array(last)], axis=1)
