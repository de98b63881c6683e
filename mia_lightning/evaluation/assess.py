"""From scores and membership to everything that can be said of them, for a run as for any file of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Assessment, ClassMetrics, Difference, SanityCheck
from mia_lightning.evaluation.blind_baseline import BLIND, blind_baseline, blind_features, blind_scores
from mia_lightning.evaluation.claims import claim
from mia_lightning.evaluation.comparison import Bootstrap, agreement, comparable_rates, differences, paired_bootstrap
from mia_lightning.evaluation.config import FPRS, OneRun
from mia_lightning.evaluation.guards import not_run, preprocessing_parity
from mia_lightning.evaluation.per_class import per_class_metrics
from mia_lightning.evaluation.permutation import permuted_labels
from mia_lightning.evaluation.privacy import privacy_bounds
from mia_lightning.metrics.roc import evaluate
from mia_lightning.scores.scored_records import ScoredRecords

Array = NDArray[np.float64]

MOST_CLASSES = 1000
"""More labels than that are no classes to be looked at one by one."""


def assess(
    records: ScoredRecords,
    *,
    fprs: Sequence[float] = FPRS,
    bootstrap: int = 1000,
    seed: int = 0,
    folds: int = 5,
    delta: float = 1e-5,
    confidence: float = 0.95,
    one_run: OneRun | None = None,
    pixels: NDArray[np.uint8] | NDArray[np.float32] | None = None,
    columns: Mapping[str, Array] | None = None,
    guards: Sequence[SanityCheck] = (),
) -> Assessment:
    """Assess scores on records of known membership.

    Args:
        records: N records, at least one attack; an attack must not be named "blind baseline".
        fprs: False-positive rates in [0, 1).
        bootstrap: Resamples for differences between attacks, at least 100.
        seed: Drives resamples, splits, permutations and the blind baseline.
        folds: Of the blind baseline; fewer members or non-members than that, and it is not run.
        delta: Of the privacy bounds, in [0, 1).
        confidence: Of each privacy bound, in (0, 1).
        one_run: What is declared for the one-run audit.
        pixels: (N, C, H, W) images of the records, for the blind baseline and the parity check; None leaves both out.
        columns: What else is known of the records without the target, (N,) each, for the blind baseline.
        guards: Guards that only the caller can run, such as the generalization gap.

    Raises:
        MIAError: an argument out of range; NaN or infinite scores; one side is empty.
    """
    if not records.scores:
        raise MIAError(f"{records.source}: has no scores; give at least one attack")
    if BLIND in records.scores:
        raise MIAError(f"{records.source}: an attack is named {BLIND!r}; give it another name")
    if bootstrap < 100:
        raise MIAError(f"{bootstrap} resamples are too few for an interval; give --resamples 100 or more")
    member = records.membership
    attacks = {name: evaluate(scores, member, fprs) for name, scores in records.scores.items()}
    rates = comparable_rates(fprs, int((member == 0).sum()))
    groups = blind_features(records, pixels=pixels, columns=columns)
    blind = _blind(groups, member, folds, seed)
    resampled = _resampled(records, blind, rates, bootstrap, seed)
    between = differences(resampled, list(combinations(records.scores, 2)))
    gains = differences(resampled, [(name, BLIND) for name in records.scores]) if blind is not None else ()
    return Assessment(
        records=records,
        attacks=attacks,
        differences=between,
        increments=gains,
        agreement=agreement(records.scores, member, _shared_rate(rates)) if len(records.scores) > 1 else None,
        classes=_classes(records, _shared_rate(rates)),
        class_fpr=_shared_rate(rates),
        claims={name: claim(scores, member, records.labels) for name, scores in records.scores.items()},
        bounds=tuple(
            bound
            for name, scores in records.scores.items()
            for bound in privacy_bounds(
                name, scores, member, delta=delta, confidence=confidence, seed=seed, one_run=one_run
            )
        ),
        guards=(
            _blind_guard(records, groups, blind, gains, folds, seed),
            _parity_guard(pixels, member),
            permuted_labels(records.scores, member, rates, seed=seed),
            *(guards or (not_run("generalization gap", "The target's own accuracy is not known from scores."),)),
        ),
        seed=seed,
    )


def _blind(groups: Mapping[str, Array], member: NDArray[np.int8], folds: int, seed: int) -> Array | None:
    if min(int((member == 1).sum()), int((member == 0).sum())) < max(folds, 10):
        return None
    return blind_scores(np.concatenate(list(groups.values()), axis=1), member, folds=folds, seed=seed)


def _resampled(
    records: ScoredRecords, blind: Array | None, rates: Sequence[float], bootstrap: int, seed: int
) -> Bootstrap:
    scores = dict(records.scores) if blind is None else {**records.scores, BLIND: blind}
    resamples = bootstrap if len(scores) > 1 else 2  # nothing to compare one attack with
    return paired_bootstrap(scores, records.membership, rates, resamples=resamples, seed=seed)


def _classes(records: ScoredRecords, fpr: float) -> dict[str, tuple[ClassMetrics, ...]]:
    if records.labels is None or len(np.unique(records.labels)) > MOST_CLASSES:
        return {}
    return {
        name: per_class_metrics(scores, records.membership, records.labels, fpr=fpr)
        for name, scores in records.scores.items()
    }


def _shared_rate(rates: Sequence[float]) -> float:
    """Return the rate at which the attacks' findings are compared: 1%, or the lowest above it that n resolves."""
    return min((rate for rate in rates if rate >= 0.01), default=0.05)


def _blind_guard(
    records: ScoredRecords,
    groups: Mapping[str, Array],
    scores: Array | None,
    increments: Sequence[Difference],
    folds: int,
    seed: int,
) -> SanityCheck:
    if scores is None:
        return not_run(BLIND, "Too few members or non-members for a cross-fitted blind baseline.")
    return blind_baseline(records, groups, scores, folds=folds, seed=seed, increments=increments)


def _parity_guard(pixels: NDArray[np.uint8] | NDArray[np.float32] | None, member: NDArray[np.int8]) -> SanityCheck:
    if pixels is None:
        return not_run("preprocessing parity", "The records' images are not at hand.")
    return preprocessing_parity(pixels, member)
