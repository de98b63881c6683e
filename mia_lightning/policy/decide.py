"""Evaluation of a policy on an assessment.

A criterion passes where the 95% interval of its figure lies below the margin, and fails where it lies above: each of
these is wrong with a probability of at most 2.5%. A policy passes only if all of its criteria do, so that a false pass
is no more likely than that. The worst of several classes or groups is decided at 5% over all of them (Bonferroni).
"""

from collections.abc import Iterator, Mapping, Sequence
from math import exp

import numpy as np
from scipy.special import betaincinv

from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Assessment
from mia_lightning.evaluation.comparison import ENOUGH, comparable_rates
from mia_lightning.evaluation.epsilon import fixed_ranks
from mia_lightning.evaluation.sanity_checks import GAP
from mia_lightning.metrics.evaluation import OperatingPoint
from mia_lightning.metrics.intervals import TAILS
from mia_lightning.metrics.ranks import split, threshold
from mia_lightning.metrics.roc import Evaluation, evaluate
from mia_lightning.policy.decision import Decision, Outcome, Result, overall, policy_values
from mia_lightning.policy.needed import growth, tpr_growth
from mia_lightning.policy.policy import Criterion, Policy
from mia_lightning.policy.results import outcome_of, result_of, undecided
from mia_lightning.runtime.store import key_of
from mia_lightning.scores.scored_records import ScoredRecords


def decide(
    policy: Policy,
    assessment: Assessment,
    *,
    figures: Mapping[str, Evaluation] | None = None,
    doubts: Sequence[str] = (),
    digests: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Decision:
    """Return the outcome of a policy.

    Args:
        policy: The rule.
        assessment: Figures of every attack that it requires.
        figures: Attack to the figures that decide, such as those of held-out records (default: the assessment's).
        doubts: Reasons why the audit cannot pass whatever its figures are, a sentence each.
        digests: sha256 (hex) of target and records.
        versions: Of this tool and its libraries.

    Raises:
        MIAError: a required attack was not run, or the records lack what a criterion is about.
    """
    policy.check_attacks(list(assessment.attacks))
    check_contents(policy, assessment.records, has_gap=_gap_check(assessment) is not None)
    names = policy.attacks or tuple(assessment.attacks)
    used = {name: (figures or {}).get(name) or assessment.attacks[name] for name in names}
    first = next(iter(used.values()))
    results = [Result("valid audit", "", "inconclusive", doubt) for doubt in doubts]
    results += [_reversed(name) for name, evaluation in used.items() if evaluation.points_the_other_way]
    results += _sizes(policy, first)
    for criterion in policy.criteria:
        if criterion.figure == "generalization_gap":
            results.append(_gap(criterion, assessment, first))
        else:
            results += [_of_attack(criterion, name, evaluation, assessment) for name, evaluation in used.items()]
    return Decision(
        policy=policy,
        outcome=overall(tuple(results)),
        results=tuple(results),
        n_members=first.n_members,
        n_non_members=first.n_non_members,
        digests={"policy": key_of(policy_values(policy)), **(digests or {})},
        versions=dict(versions or {}),
    )


def check_contents(policy: Policy, records: ScoredRecords, *, has_gap: bool) -> None:
    """Check that the records have what the criteria are about.

    Args:
        policy: The rule.
        records: Of the audit.
        has_gap: Whether the accuracy of the target on them is part of the audit.

    Raises:
        MIAError: no labels, groups or accuracies.
    """
    figures = {criterion.figure for criterion in policy.criteria}
    if "worst_class" in figures and records.labels is None:
        raise MIAError(f"the policy limits worst_class, but {records.source} has no labels; add a column label")
    if "worst_group" in figures and records.groups is None:
        raise MIAError(f"the policy limits worst_group, but {records.source} has no groups; add a column group")
    if "generalization_gap" in figures and not has_gap:
        raise MIAError(
            f"the policy limits generalization_gap, which {records.source} does not show; leave the criterion out, or "
            "audit the model with train.py on records with labels"
        )


def _of_attack(criterion: Criterion, name: str, evaluation: Evaluation, assessment: Assessment) -> Result:
    if criterion.figure == "auc":
        interval = evaluation.auc, evaluation.auc_low, evaluation.auc_high
        return result_of(criterion, name, interval, evaluation, growth(*interval, criterion.max))
    if criterion.figure == "tpr":
        return _tpr(criterion, name, evaluation, assessment)
    if criterion.figure == "epsilon":
        return _epsilon(criterion, name, evaluation, assessment)
    return _worst(criterion, name, assessment)


def _tpr(criterion: Criterion, name: str, evaluation: Evaluation, assessment: Assessment) -> Result:
    assert criterion.fpr is not None
    point = _point(name, evaluation, assessment, criterion.fpr)
    interval = point.tpr, point.low, point.high
    if not point.resolvable:
        minimum = 10 / criterion.fpr / evaluation.n_non_members
        return undecided(
            criterion, name, evaluation, minimum, f"{evaluation.n_non_members:,} non-members do not resolve this rate"
        )
    if outcome_of(interval, criterion.max) != "inconclusive":
        return result_of(criterion, name, interval, evaluation, None)
    return result_of(
        criterion, name, interval, evaluation, _tpr_factor(name, evaluation, assessment, criterion.fpr, criterion.max)
    )


def _tpr_factor(name: str, evaluation: Evaluation, assessment: Assessment, fpr: float, margin: float) -> float | None:
    members, non_members = split(assessment.records.scores[name], assessment.records.membership)
    factor = tpr_growth(members, non_members, fpr, margin, evaluation.variance_inflation)
    return None if factor is None else factor * len(members) / evaluation.n_members


def _point(name: str, evaluation: Evaluation, assessment: Assessment, fpr: float) -> OperatingPoint:
    """Return the point of a rate, computed where it was not evaluated.

    Raises:
        MIAError: the figures are of held-out records, whose scores the assessment lacks.
    """
    computed = {point.fpr: point for point in evaluation.points}
    if fpr in computed:
        return computed[fpr]
    records = assessment.records
    if evaluation is not assessment.attacks[name]:
        raise MIAError(f"the policy limits the TPR at FPR {fpr:g}; add it to --evaluation.fprs")
    scores, stability = records.scores[name], records.stability.get(name)
    return evaluate(scores, records.membership, (fpr,), groups=records.groups, stability=stability).points[0]


def _epsilon(criterion: Criterion, name: str, evaluation: Evaluation, assessment: Assessment) -> Result:
    """Decide a limit of epsilon: failed by a lower bound above it, passed where the attack is within it at every rate.

    At FPR f, epsilon is below e where TPR < min(e^epsilon f + delta, 1 - e^-epsilon (1 - f - delta)). The rates are
    those that leave at least ten non-members on either side of the threshold.
    """
    of_attack = [bound for bound in assessment.bounds if bound.attack == name and bound.epsilon is not None]
    bounds = [bound for bound in of_attack if bound.reported] or of_attack
    lower, delta = (bounds[0].epsilon or 0.0, bounds[0].delta) if bounds else (0.0, 0.0)
    points = _epsilon_points(name, evaluation, assessment)
    if lower > criterion.max:
        sentence = f"a lower bound on epsilon is {lower:.2f} (delta {delta:g})"
        return Result(criterion.name, name, "fail", sentence, lower, lower, None, criterion.max)
    if not points:
        factor = 2 * ENOUGH / evaluation.n_non_members
        return undecided(criterion, name, evaluation, factor, "fewer than 20 non-members")
    limits = [min(exp(criterion.max) * p.fpr + delta, 1 - exp(-criterion.max) * (1 - p.fpr - delta)) for p in points]
    largest = max(_epsilon_at(point.high, point.fpr, delta) for point in points)
    value = max(lower, *(_epsilon_at(point.tpr, point.fpr, delta) for point in points))
    shown = f"{value:.2f} [{lower:.2f} to {largest:.2f}], delta {delta:g}"
    open_ = [(point.fpr, limit) for point, limit in zip(points, limits, strict=True) if point.high >= limit]
    if not open_:
        return Result(criterion.name, name, "pass", shown, value, lower, largest, criterion.max)
    needed = [_tpr_factor(name, evaluation, assessment, fpr, limit) for fpr, limit in open_]
    factor_ = None if None in needed else max(factor for factor in needed if factor is not None)
    return undecided(criterion, name, evaluation, factor_, shown, (value, lower, largest))


def _epsilon_points(name: str, evaluation: Evaluation, assessment: Assessment) -> list[OperatingPoint]:
    """Return the TPRs at FPRs of growing distance from 0 and from 1; of held-out records, at the evaluated rates."""
    n, records = evaluation.n_non_members, assessment.records
    if evaluation is not assessment.attacks[name]:
        rates = comparable_rates((point.fpr for point in evaluation.points if point.fpr > 0), n)
        return [evaluation.at(rate) for rate in rates]
    ranks = fixed_ranks(n + 1)
    rates = [float(rank / n) for rank in ranks if ENOUGH <= rank <= n - ENOUGH]
    scores, stability = records.scores[name], records.stability.get(name)
    return list(evaluate(scores, records.membership, rates, groups=records.groups, stability=stability).points)


def _epsilon_at(tpr: float, fpr: float, delta: float) -> float:
    above = np.log(max(tpr - delta, 1e-12) / fpr)
    below = np.log(max(1 - fpr - delta, 1e-12) / max(1 - tpr, 1e-12))
    return float(max(0.0, above, below))


def _worst(criterion: Criterion, name: str, assessment: Assessment) -> Result:
    """Decide a limit of the TPR of every class or group at the threshold of all records (Clopper-Pearson)."""
    assert criterion.fpr is not None
    records = assessment.records
    keys = records.labels if criterion.figure == "worst_class" else records.groups
    assert keys is not None
    part, scores = ("class" if criterion.figure == "worst_class" else "group"), records.scores[name]
    level = threshold(split(scores, records.membership)[1], criterion.fpr)
    members = records.membership == 1
    parts, index = np.unique(keys[members], return_inverse=True)
    totals = np.bincount(index)
    above = np.bincount(index, weights=scores[members] > level)
    tail = float(TAILS[0]) / len(parts)
    low = np.where(above > 0, betaincinv(np.maximum(above, 0.5), totals - above + 1, tail), 0.0)
    high = np.where(above < totals, betaincinv(above + 1, np.maximum(totals - above, 0.5), 1 - tail), 1.0)
    rates = above / totals
    worst = int(np.argmax(high if high.max() >= criterion.max and low.max() <= criterion.max else rates))
    worst = int(np.argmax(low)) if low.max() > criterion.max else worst
    interval = float(rates[worst]), float(low[worst]), float(max(high.max(), high[worst]))
    words = f"{part} {parts[worst]}, {int(totals[worst])} of its members, of {len(parts)}"
    factor = growth(interval[0], interval[1], float(high[worst]), criterion.max)
    evaluation = assessment.attacks[name]
    return result_of(criterion, name, interval, evaluation, factor, words)


def _gap_check(assessment: Assessment) -> Mapping[str, float | int | str] | None:
    check = assessment.check(GAP)
    return check.details if check is not None and "gap" in check.details else None


def _gap(criterion: Criterion, assessment: Assessment, evaluation: Evaluation) -> Result:
    details = _gap_check(assessment)
    assert details is not None
    interval = float(details["gap"]), float(details["gap_low"]), float(details["gap_high"])
    return result_of(criterion, "", interval, evaluation, growth(*interval, criterion.max))


def _sizes(policy: Policy, evaluation: Evaluation) -> Iterator[Result]:
    for part, minimum, count in (
        ("members", policy.minimum_members, evaluation.n_members),
        ("non-members", policy.minimum_non_members, evaluation.n_non_members),
    ):
        if minimum:
            outcome: Outcome = "pass" if count >= minimum else "inconclusive"
            needed = {"needed_members" if part == "members" else "needed_non_members": minimum}
            yield Result(
                f"at least {minimum:,} {part}", "", outcome, f"{count:,} {part}", float(count), margin=float(minimum),
                **(needed if outcome == "inconclusive" else {}),
            )  # fmt: skip


def _reversed(name: str) -> Result:
    sentence = "the scores rank non-members above members (AUC significantly below 0.5); give the negated scores"
    return Result("valid audit", name, "inconclusive", sentence)
