"""Evidence of membership in the figures of all attacks, corrected for their number."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mia_lightning.evaluation.blind_baseline import chance_p_values
from mia_lightning.metrics.roc import Evaluation, OperatingPoint

LEVEL = 0.025
"""One-sided error, over all attacks."""

LIFT = 2.0
"""Least ratio of TPR to FPR, at the low end of the TPR's interval, from which on members are called recognized."""


@dataclass(frozen=True)
class Evidence:
    """Evidence of one attack."""

    attack: str
    point: OperatingPoint
    """The operating point that decides."""

    p_tpr: float
    """One-sided p-value of the TPR against random ranking, adjusted for the number of attacks (Bonferroni)."""

    p_auc: float
    """One-sided p-value of the AUC against 0.5, adjusted for the number of attacks."""

    p_reversed: float
    """One-sided p-value of an AUC below 0.5, adjusted for the number of attacks."""

    at_low_rates: bool
    """The TPR is above the FPR at the deciding point."""

    on_average: bool
    """The AUC is above 0.5."""

    reversed: bool
    """The AUC is below 0.5: lower scores mean members."""

    suspicious: bool
    """Some 95% interval excludes chance, before correction for the number of attacks."""

    @property
    def lift(self) -> float:
        """TPR over FPR at the low end of the TPR's interval."""
        return self.point.low / self.point.fpr if self.point.fpr > 0 else float("inf") * (self.point.low > 0)


def deciding_point(evaluation: Evaluation) -> OperatingPoint:
    """Return the point at an FPR of 1%, or at the lowest resolved rate above it, or at the highest rate there is."""
    enough = [point for point in evaluation.points if point.fpr >= 0.01 and point.resolvable]
    return min(enough, key=lambda point: point.fpr) if enough else max(evaluation.points, key=lambda point: point.fpr)


def evidence(evaluations: Mapping[str, Evaluation]) -> dict[str, Evidence]:
    """Return the evidence of each attack.

    A TPR has to pass two tests, each corrected for the number of attacks: that of its 95% interval, and the exact
    hypergeometric one against a random ranking, which is valid for few members too. An AUC has to pass that of its
    interval.
    """
    count = len(evaluations)
    return {name: _evidence(name, evaluation, count) for name, evaluation in evaluations.items()}


def _evidence(name: str, evaluation: Evaluation, count: int) -> Evidence:
    point = deciding_point(evaluation)
    index = evaluation.points.index(point)
    exact = chance_p_values(evaluation)[1 + index]
    p_tpr = min(1.0, count * max(exact, _above(point.tpr, point.low, point.fpr)))
    p_auc = min(1.0, count * _above(evaluation.auc, evaluation.auc_low, 0.5))
    p_reversed = min(1.0, count * _above(1 - evaluation.auc, 1 - evaluation.auc_high, 0.5))
    ranks = evaluation.distinct > 1
    return Evidence(
        attack=name,
        point=point,
        p_tpr=p_tpr,
        p_auc=p_auc,
        p_reversed=p_reversed,
        at_low_rates=ranks and point.low > point.fpr and p_tpr <= LEVEL,
        on_average=ranks and evaluation.auc_low > 0.5 and p_auc <= LEVEL,
        reversed=ranks and evaluation.auc_high < 0.5 and p_reversed <= LEVEL,
        suspicious=ranks
        and ((point.low > point.fpr and exact <= LEVEL) or evaluation.auc_low > 0.5 or evaluation.auc_high < 0.5),
    )


def _above(value: float, low: float, chance: float) -> float:
    """Return the p-value of a rate above chance whose 95% interval has this low end.

    It is that of as many independent trials, by Clopper and Pearson, as give this low end: 0.025 where the interval
    ends at chance, and defined for rates of 1.
    """
    from scipy.optimize import brentq
    from scipy.special import betainc

    if value <= chance or low <= 0:
        return 1.0
    if low >= value:
        return 0.0

    def tail(log_trials: float, rate: float) -> float:
        trials = float(np.exp(log_trials))
        return float(betainc(value * trials, (1 - value) * trials + 1, rate))

    fewest, most = -7.0, 28.0
    if tail(most, low) > LEVEL or tail(fewest, low) < LEVEL:
        return 0.0 if low > chance else 1.0
    return tail(float(brentq(lambda trials: tail(trials, low) - LEVEL, fewest, most)), chance)
