"""Tests whether another reading is that of the training, from the target's outputs on members and non-members.

Three findings count, at a level of 0.1% over all readings together (separation: 1%):

- Accuracy: at least 5 points higher, by an exact McNemar test on the same records. Where the outputs on members are
  such as training leaves behind, the reading must reveal memorized members or fit two thirds of the records as well;
  a network that is trained for a short time is often more accurate on images of more contrast.
- Separation: the AUC of the confidence between members and non-members is at least 5 points higher, by DeLong's
  paired test, and the loss on members lower. Memorization is specific to the images of the training.
- Order of the classes: as accuracy, without the other conditions.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mia_lightning.targets.reading_search import Outcome

Mask = NDArray[np.bool_]

MARGIN = 0.05
"""Least gain of accuracy, or of AUC, that counts."""

ALPHA, ALPHA_SEPARATION = 1e-3, 1e-2
"""Levels of the tests of accuracy and of separation, of all readings together."""

OVERCONFIDENT = 0.15
"""Mean confidence minus accuracy on members above which the configured reading is not that of the training."""

SKEWED = 0.15
"""Distance (total variation) of the mean probabilities on members from their class frequencies, above which
the configured reading is not that of the training either."""

NEAR = 0.15
"""Distance from chance within which the upper end of the accuracy's interval must lie to be called near chance."""

SEPARATED = 0.95
"""AUC above which another reading cannot separate members much better."""

FEWEST = 20
"""Members, and non-members, below which separation is not tested."""


def reveals_all(configured: Outcome, members: Mask) -> bool:
    """Whether no other reading can be much better: nearly all members correct, and separated."""
    accurate = bool(configured.correct[members].mean() > 1 - MARGIN)
    enough = min(members.sum(), (~members).sum()) >= FEWEST
    return accurate and (not enough or separation(configured, members) > SEPARATED)


def separation(outcome: Outcome, members: Mask) -> float:
    """Return the AUC of the confidence between the members and non-members among the outcome's records."""
    from mia_lightning.metrics.variance import auc_influence

    sides = (np.sort(outcome.phi[outcome.rows & side]) for side in (members, ~members))
    return auc_influence(*sides).value


def is_near_chance(correct: int, total: int, chance: float) -> bool:
    """Whether the 99% Clopper-Pearson interval contains chance and ends less than 15 points above."""
    from scipy.stats import binomtest

    low, high = binomtest(correct, total).proportion_ci(0.99)
    return bool(low <= chance and high <= chance + NEAR)


def better_reading(
    configured: Outcome,
    tried: Sequence[Outcome],
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    members: Mask,
    chance: float,
) -> Outcome | None:
    """Return the reading of highest accuracy and separation among those that are significantly better, if any.

    Args:
        configured: Outputs as configured.
        tried: Outputs under every other reading.
        probabilities: (N, K) as configured.
        labels: (N,).
        members: (N,).
        chance: Accuracy of predictions that are independent of the labels.
    """
    level = ALPHA / max(len(tried), 1)
    trained = _looks_trained(probabilities[members], labels[members])
    at_chance = is_near_chance(int(configured.correct[members].sum()), int(members.sum()), chance)
    better = [
        outcome
        for outcome in tried
        if _is_more_accurate(outcome, configured, members, level, trained=trained, at_chance=at_chance)
        or _separates_better(outcome, configured, members, ALPHA_SEPARATION / len(tried))
    ]
    complete = [outcome for outcome in better if outcome.rows.mean() > 0.4]
    return max(complete or better, key=lambda outcome: _quality(outcome, members), default=None)


def _quality(outcome: Outcome, members: Mask) -> tuple[float, float]:
    rows = outcome.rows & members
    accuracy = float(outcome.correct[rows if rows.any() else outcome.rows].mean())
    if _sides(outcome, members) < FEWEST:
        return accuracy, 0.0
    return accuracy + separation(outcome, members), -outcome.loss(members)


def _sides(outcome: Outcome, members: Mask) -> int:
    """Return the smaller number of members and non-members among the outcome's records."""
    return int(min((outcome.rows & members).sum(), (outcome.rows & ~members).sum()))


def _is_more_accurate(
    outcome: Outcome, configured: Outcome, members: Mask, level: float, *, trained: bool, at_chance: bool
) -> bool:
    from scipy.stats import binomtest

    values, before, mask = outcome.correct, configured.correct, outcome.rows
    if values[mask].mean() - before[mask].mean() < MARGIN:
        return False
    if outcome.reading.is_neighbor and not at_chance and not _gap_grows(outcome, configured, members):
        return False
    if trained and not _restores_training(outcome, configured, members):
        return False
    gained, lost = int((values & ~before & mask).sum()), int((~values & before & mask).sum())
    return gained > 0 and bool(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue < level)


def _separates_better(outcome: Outcome, configured: Outcome, members: Mask, level: float) -> bool:
    from scipy.stats import norm

    if outcome.reading.network is not None or not outcome.reading.changes_images or _sides(outcome, members) < FEWEST:
        return False
    if outcome.loss(members) > configured.loss(members & outcome.rows):
        return False
    in_, out = outcome.rows & members, outcome.rows & ~members
    before, after = (_placements(item.phi[in_], item.phi[out]) for item in (configured, outcome))
    gain = float((after[0] - before[0]).mean())
    variance = sum((second - first).var(ddof=1) / len(first) for first, second in zip(before, after, strict=True))
    return gain >= MARGIN and bool(norm.sf(gain, scale=max(np.sqrt(variance), 1e-6)) < level)


def _placements(members: NDArray[np.float64], non_members: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return the share of non-members below each member, and of members above each non-member."""
    from mia_lightning.metrics.ranks import share_below

    return share_below(members, np.sort(non_members)), 1 - share_below(non_members, np.sort(members))


def _looks_trained(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> bool:
    """Whether the probabilities (N, K) on members are such as cross-entropy leaves behind on its training images.

    The gradient of the last bias is the mean probability minus the class frequency, which vanishes early in training,
    and confidence stays below accuracy while the loss falls. Both fail on images of another normalization or size; a
    network that is trained for a short time is often more accurate on images of more contrast, but passes.
    """
    classes = probabilities.shape[1]
    frequencies = np.bincount(labels, minlength=classes)[:classes] / len(labels)
    skew = np.abs(probabilities.mean(axis=0) - frequencies).sum() / 2
    confidence = probabilities.max(axis=1).mean() - (probabilities.argmax(axis=1) == labels).mean()
    return bool(skew <= SKEWED + 0.2 * np.sqrt(classes / len(labels)) and confidence <= OVERCONFIDENT)


def _restores_training(outcome: Outcome, configured: Outcome, members: Mask) -> bool:
    """Whether a reading reveals memorized members, or an order of the classes fits two thirds of the records.

    Memorized: 95% of the members are classified correctly, 30 points more than as configured, or the gain on members
    exceeds that on non-members by 15 points and five standard errors.
    """
    values, mask = outcome.correct, outcome.rows
    if not outcome.reading.changes_images:
        return float(values[mask].mean()) >= 2 / 3
    gain = values.astype(float) - configured.correct
    in_, out = gain[mask & members], gain[mask & ~members]
    if len(in_) and in_.mean() >= 6 * MARGIN and values[mask & members].mean() >= 1 - MARGIN:
        return True
    if len(in_) == 0 or len(out) == 0:
        return False
    difference = in_.mean() - out.mean()
    return bool(difference >= 3 * MARGIN and difference >= 5 * np.sqrt(in_.var() / len(in_) + out.var() / len(out)))


def _gap_grows(outcome: Outcome, configured: Outcome, members: Mask) -> bool:
    """Whether the accuracy grows more on members than on non-members, as it does where the training's reading is found.

    A normalization next to the training's can raise both sides alike in a network that is not trained to the end.
    """
    gain = outcome.correct.astype(float) - configured.correct
    in_, out = gain[outcome.rows & members], gain[outcome.rows & ~members]
    return len(out) == 0 or float(in_.mean() - out.mean()) >= MARGIN
