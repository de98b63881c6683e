"""Assessment of scores against membership, the same for a run as for any file of scores.

Results do not depend on the order of the rows: everything that draws, samples or sums works on records sorted by their
content.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Assessment, ClassMetrics, Difference, SanityCheck
from mia_lightning.evaluation.blind_baseline import BLIND, blind_baseline, blind_features, blind_scores, combined_scores
from mia_lightning.evaluation.claims import claim
from mia_lightning.evaluation.column_audit import column_audit
from mia_lightning.evaluation.comparison import Bootstrap, agreement, comparable_rates, differences, paired_bootstrap
from mia_lightning.evaluation.config import FPRS, BoundName, OneRun
from mia_lightning.evaluation.file_notes import file_notes
from mia_lightning.evaluation.per_class import per_class_metrics
from mia_lightning.evaluation.permutation import intervals_at_chance
from mia_lightning.evaluation.pixel_features import Images, pixel_features
from mia_lightning.evaluation.privacy import privacy_bounds
from mia_lightning.evaluation.sanity_checks import GAP, PIXELS, pixel_distribution, skipped
from mia_lightning.metrics.ranks import Array, without_ties
from mia_lightning.metrics.roc import evaluate
from mia_lightning.scores.scored_records import ScoredRecords

REFITTED_TWICE = 2.0
"""Variance of what an attack adds to the AUC of the blind baseline, in that of fixed scores: both are fitted across
folds (measured 0.8 to 2.6, and 0.6 to 1.15 for a TPR)."""

MOST_CLASSES = 1000
"""Most labels for which figures by class are computed."""


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
    bound: BoundName = "counts",
    pixels: Images | None = None,
    columns: Mapping[str, Array] | None = None,
    audited: Mapping[str, Array] | None = None,
    audited_rows: NDArray[np.integer] | None = None,
    checks: Sequence[SanityCheck] = (),
) -> Assessment:
    """Assess scores on records of known membership.

    Args:
        records: N records, at least one attack; an attack must not be named "blind baseline".
        fprs: False-positive rates in [0, 1).
        bootstrap: Resamples for differences between attacks, at least 100.
        seed: Random seed of resamples, splits, permutations and the blind baseline.
        folds: Folds of the blind baseline, which is skipped with fewer members or non-members.
        delta: Delta of the privacy bounds, in [0, 1).
        confidence: Confidence of each privacy bound, in (0, 1).
        one_run: Declarations for the one-run audit.
        bound: Epsilon bound declared beforehand as the reported one.
        pixels: (N, C, H, W) images of the records, for the blind baseline and the pixel check; None omits both.
        columns: Covariates known without the target, (N,) each, for the blind baseline and the column audit.
        audited: Columns that do not come from the target, (M,) each, for the column audit.
        audited_rows: (M,) rows that these are about; None = all.
        checks: Sanity checks that only the caller can run, such as the generalization gap.

    Raises:
        MIAError: an argument out of range; NaN or infinite scores; no members or no non-members.
    """
    _check(records, bootstrap)
    member = records.membership
    figures = {
        name: evaluate(scores, member, fprs, groups=records.groups, stability=records.stability.get(name))
        for name, scores in records.scores.items()
    }
    rates = comparable_rates(fprs, int((member == 0).sum()))
    features = None if pixels is None else pixel_features(pixels)
    ordered = _ordered(records, blind_features(records, features=features, columns=columns))
    groups = ordered.groups
    blind = _blind(ordered, folds, seed)
    between = differences(_bootstrap(ordered.records.scores, ordered.records, rates, bootstrap, seed))
    gains = () if blind is None else increments(ordered.records, blind, rates, bootstrap, folds, seed)
    shared = _shared_rate(rates)
    return Assessment(
        records=records,
        attacks=figures,
        differences=between,
        increments=gains,
        agreement=agreement(records.scores, member, shared) if len(records.scores) > 1 else None,
        classes=_classes(records, shared),
        class_fpr=shared,
        claims={
            name: claim(scores, member, records.labels, groups=records.groups)
            for name, scores in records.scores.items()
        },
        bounds=tuple(
            epsilon
            for name, scores in ordered.records.scores.items()
            for epsilon in privacy_bounds(
                name,
                scores,
                ordered.records.membership,
                delta=delta,
                confidence=confidence,
                seed=seed,
                one_run=one_run,
                reported=bound,
            )
        ),
        checks=(
            _blind_check(ordered.records, groups, blind, gains, folds, seed),
            skipped(PIXELS, "The images of the records are not available.")
            if pixels is None
            else pixel_distribution(pixels, ordered.records.membership, ordered.pixels(features or {})),
            column_audit(audited or {}, member, rows=audited_rows, covariates=columns, scores=records.scores),
            intervals_at_chance(ordered.records.scores, ordered.records.membership, rates, seed=seed),
            *(checks or (skipped(GAP, "The accuracy of the target is not known from scores alone."),)),
        ),
        seed=seed,
        turned={
            name: evaluate(-scores, member, fprs)
            for name, scores in records.scores.items()
            if figures[name].auc_high < 0.5
        },
        notes=file_notes(records, seed=seed),
    )


@dataclass(frozen=True, eq=False)
class _Ordered:
    """Records in an order that follows from their content alone."""

    records: ScoredRecords
    groups: Mapping[str, Array]
    """Sources of the blind baseline, from `blind_features`."""

    def pixels(self, names: Iterable[str]) -> dict[str, Array]:
        """Return the pixel features by name."""
        return dict(zip(names, self.groups["pixels"].T, strict=True))


def _ordered(records: ScoredRecords, groups: Mapping[str, Array]) -> _Ordered:
    """Sort records by scores, labels and sources of the blind baseline; records equal in all of these are alike."""
    keys = [records.membership, *(column for group in groups.values() for column in group.T[:4])]
    order = np.lexsort([*keys, *records.scores.values()])
    ordered = ScoredRecords(
        ids=records.ids[order],
        membership=records.membership[order],
        scores={name: scores[order] for name, scores in records.scores.items()},
        labels=None if records.labels is None else records.labels[order],
        source=records.source,
        groups=None if records.groups is None else records.groups[order],
    )
    return _Ordered(ordered, {name: group[order] for name, group in groups.items()})


def _check(records: ScoredRecords, bootstrap: int) -> None:
    if not records.scores:
        raise MIAError(f"{records.source}: has no scores; give at least one attack")
    if BLIND in records.scores:
        raise MIAError(f"{records.source}: an attack is named {BLIND!r}; rename it")
    if bootstrap < 100:
        raise MIAError(f"{bootstrap} resamples are too few for an interval; give --resamples 100 or more")


def _blind(ordered: _Ordered, folds: int, seed: int) -> Array | None:
    member = ordered.records.membership
    if not ordered.groups or min(int((member == 1).sum()), int((member == 0).sum())) < max(folds, 10):
        return None
    features, groups = np.concatenate(list(ordered.groups.values()), axis=1), ordered.records.groups
    try:
        return blind_scores(features, member, folds=folds, seed=seed, groups=groups)
    except MIAError:  # fewer groups of members or of non-members than folds
        return None


def _bootstrap(
    scores: Mapping[str, Array], records: ScoredRecords, rates: Sequence[float], resamples: int, seed: int
) -> Bootstrap:
    resamples = resamples if len(scores) > 1 else 2  # one attack has nothing to be compared with
    return paired_bootstrap(scores, records.membership, rates, resamples=resamples, seed=seed, groups=records.groups)


def increments(
    records: ScoredRecords, blind: Array, rates: Sequence[float], resamples: int, folds: int, seed: int
) -> tuple[Difference, ...]:
    """Return what each attack adds to the blind baseline, in AUC and in TPR at each rate.

    Ties are broken at random: a blind baseline of few distinct scores would otherwise gain TPR by any noise that splits
    them.

    Args:
        records: N records.
        blind: (N,) from `blind_scores`.
        rates: False-positive rates in [0, 1).
        resamples: Of the paired bootstrap.
        folds: Of the regression on baseline and attack.
        seed: Random seed.
    """
    together = {
        name: combined_scores(blind, scores, records.membership, folds=folds, seed=seed, groups=records.groups)
        for name, scores in records.scores.items()
    }
    untied = {name: without_ties(scores, seed) for name, scores in (together | {BLIND: blind}).items()}
    resampled = _bootstrap(untied, records, rates, resamples, seed)
    return differences(resampled, [(name, BLIND) for name in together], auc_inflation=REFITTED_TWICE)


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


def _blind_check(
    records: ScoredRecords,
    groups: Mapping[str, Array],
    scores: Array | None,
    increments: Sequence[Difference],
    folds: int,
    seed: int,
) -> SanityCheck:
    if not groups:
        return skipped(BLIND, "Nothing is known of the records without the target: no label, image or covariate.")
    if scores is None:
        return skipped(BLIND, "Too few members or non-members for a cross-fitted blind baseline.")
    return blind_baseline(records, groups, scores, folds=folds, seed=seed, increments=increments)
