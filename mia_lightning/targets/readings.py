"""Check of the target's inputs and labels: its accuracy on known members, as configured and under other readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mia_lightning.records.records import Records
    from mia_lightning.targets.alternatives import Alternative
    from mia_lightning.targets.base import Target

MOST = 512
"""Records that are sampled, members first."""

FEWEST = 20
"""Labeled members without which the check does not run."""

COST = 0.1
"""Of the cost of an extraction with 18 views, an upper bound of the check's (beyond 3,000 images)."""

MARGIN = 0.05
"""Least gain of accuracy of another reading that counts."""

ALPHA = 1e-3
"""Level of the paired test against all other readings together."""

OVERCONFIDENT = 0.15
"""Mean confidence minus accuracy on members above which the configured reading is not that of the training."""

SKEWED = 0.15
"""Distance (total variation) of the mean probabilities on members from their class frequencies, in the same role."""

NEAR = 0.15
"""Distance from chance within which the upper end of the accuracy's interval must lie to be called near chance."""


@dataclass(frozen=True)
class Reading:
    """One way of presenting the records to the target, and the accuracy it gives."""

    name: str
    """Difference from the configured reading, such as "no normalization"."""

    option: str
    """Command-line options that select it, such as "--data.mean [0, 0, 0] --data.std [1, 1, 1]"."""

    correct: int
    """Members classified correctly, of `total`."""

    total: int

    @property
    def accuracy(self) -> float:
        """Share of the sampled members that are classified correctly, in [0, 1]."""
        return self.correct / self.total


@dataclass(frozen=True)
class ReadingCheck:
    """Accuracy on known members as configured, against chance and against other readings of the same files.

    A target is most accurate on its own training records when they are presented as in training. With
    `status == "warn"` the configured reading is probably not that of the training: no verdict about membership, in
    either direction, may be shown without `sentence` above it.
    """

    status: Literal["pass", "warn"]

    sentence: str
    """One or two sentences for terminal, report and card; under "warn" it names the option to type."""

    members: Reading
    """The configured reading on the sampled members."""

    accuracy_on_non_members: float
    """Of the configured reading on the sampled non-members, in [0, 1]; NaN without labeled ones."""

    chance: float
    """Accuracy expected if predictions and labels were independent, from both their frequencies."""

    readings: int = 0
    """Number of other readings that were evaluated."""

    forward_passes: int = 0
    """Images that were run through the network: the cost of the check."""


def check_readings(
    target: Target,
    public: Records,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    records: int | None = None,
    device: str = "cpu",
) -> ReadingCheck | None:
    """Evaluate the target's accuracy on known members as configured and under other readings of the same files.

    Other readings are the usual normalizations and scales, sizes, channel orders, first layers and orders of the
    classes. Another reading counts as better where its accuracy is at least 5 points higher and an exact McNemar test
    on the same records, corrected for the number of readings, has p < 0.001. Where the probabilities are as after a
    training on the configured reading (see `_looks_trained`), more evidence is needed, and a normalization close to
    the configured one must always help members more than non-members. The accuracy is near chance where its 99%
    Clopper-Pearson interval contains chance and ends less than 15 points above.

    Args:
        target: From `load_target`.
        public: Records of known membership; those without a label are left out.
        mean: Of the configured normalization, per channel.
        std: Standard deviation per channel.
        records: Number of records in the run, which bounds the cost; None is that of the public ones.
        device: Of torch, where the network runs meanwhile.

    Returns:
        None with fewer than 20 labeled members.
    """
    from mia_lightning.targets.alternatives import Evaluator, alternatives, class_orders

    rows, labels = _sample(public)
    members = public.membership[rows] == 1
    if members.sum() < FEWEST:
        return None
    with Evaluator(target, public.images[rows], mean, std, device) as evaluator:
        probabilities = evaluator.probabilities()
        predicted = probabilities.argmax(axis=1)
        correct = predicted == labels
        chance = _chance(predicted, labels, target.num_classes)
        tried: list[tuple[Alternative, NDArray[np.bool_], NDArray[np.bool_]]] = []
        if correct[members].mean() < 1 - MARGIN:  # else nothing can be much better
            tried = [(a, values, mask) for a, values, mask in class_orders(predicted, labels, target)]
            budget = max(3000, int(COST * 18 * (records or len(public))))
            untried = alternatives(target, public, mean, std)
            screen = _screen_size(len(rows), budget, [a.cost for a in untried])
            tried += evaluator.screened(untried, labels, screen)
        passes, count = evaluator.passes, len(tried)
    configured = Reading("as configured", "", int(correct[members].sum()), int(members.sum()))
    if _looks_trained(probabilities[members], labels[members]):
        tried = [item for item in tried if _restores_training(*item, correct, members)]
    best = _best(tried, correct, members, at_chance=_near_chance(configured, chance))
    non_members = float(correct[~members].mean()) if (~members).any() else float("nan")
    other = None if best is None else best[0]
    better = best is not None and best[1]
    near = not better and _near_chance(configured, chance)
    sentence = _sentence(configured, other, chance, better=better, near=near, tried=count)
    status: Literal["pass", "warn"] = "warn" if better or near else "pass"
    return ReadingCheck(status, sentence, configured, non_members, chance, len(tried), passes)


def _sample(public: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows of labeled members and, in the rest of the sample, non-members, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    labeled = public.labels >= 0
    members, non_members = (rng.permutation(np.flatnonzero(labeled & (public.membership == m))) for m in (1, 0))
    members = members[: MOST - min(len(non_members), MOST // 4)]
    rows = np.concatenate([members, non_members[: MOST - len(members)]])
    return rows, np.asarray(public.labels[rows])


def _screen_size(count: int, budget: int, costs: Sequence[float]) -> int:
    """Return how many images screen every other reading, so that all of them and a full run of two fit the budget."""
    return int(np.clip((budget - 3 * count) / max(sum(costs), 1), 32, 128))


def _chance(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """Return the accuracy expected of predictions that are independent of the labels."""
    shares = [np.bincount(values, minlength=classes)[:classes] / len(values) for values in (predicted, labels)]
    return float(shares[0] @ shares[1])


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


def _restores_training(
    alternative: Alternative,
    values: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    correct: NDArray[np.bool_],
    members: NDArray[np.bool_],
) -> bool:
    """Whether a reading reveals memorized members, or an order of the classes fits two thirds of the records.

    Memorized: 95% of the members are classified correctly, 30 points more than as configured, or the gain on members
    exceeds that on non-members by 15 points and five standard errors.
    """
    if not alternative.changes_images:
        return float(values[mask].mean()) >= 2 / 3
    gain = values.astype(float) - correct
    in_, out = gain[mask & members], gain[mask & ~members]
    if len(in_) and in_.mean() >= 6 * MARGIN and values[mask & members].mean() >= 1 - MARGIN:
        return True
    if len(in_) == 0 or len(out) == 0:
        return False
    difference = in_.mean() - out.mean()
    return bool(difference >= 3 * MARGIN and difference >= 5 * np.sqrt(in_.var() / len(in_) + out.var() / len(out)))


def _best(
    tried: Sequence[tuple[Alternative, NDArray[np.bool_], NDArray[np.bool_]]],
    correct: NDArray[np.bool_],
    members: NDArray[np.bool_],
    *,
    at_chance: bool,
) -> tuple[Reading, bool] | None:
    """Return the reading with the most significant gain on its records, and whether it is better."""
    from scipy.stats import binomtest

    best: tuple[tuple[float, float], Alternative, NDArray[np.bool_], NDArray[np.bool_]] | None = None
    for alternative, values, mask in tried:
        gain = float(values[mask].mean() - correct[mask].mean())
        gained, lost = int((values & ~correct & mask).sum()), int((~values & correct & mask).sum())
        p = binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue if gained + lost else 1.0
        if gain < MARGIN or (
            alternative.is_neighbor and not at_chance and not _gap_grows(values, correct, mask, members)
        ):
            p = 1.0
        rank = (float(p), -gain)
        if best is None or rank < best[0]:
            best = (rank, alternative, values, mask)
    if best is None:
        return None
    (p, _), alternative, values, mask = best
    shown = mask & members if (mask & members).any() else mask
    reading = Reading(alternative.name, alternative.option, int(values[shown].sum()), int(shown.sum()))
    return reading, p < ALPHA / len(tried)


def _gap_grows(
    values: NDArray[np.bool_], correct: NDArray[np.bool_], mask: NDArray[np.bool_], members: NDArray[np.bool_]
) -> bool:
    """Whether the accuracy grows more on members than on non-members, as it does where the training's reading is found.

    A normalization next to the training's can raise both sides alike in a network that is not trained to the end.
    """
    gain = values.astype(float) - correct
    in_, out = gain[mask & members], gain[mask & ~members]
    return len(out) == 0 or float(in_.mean() - out.mean()) >= MARGIN


def _near_chance(reading: Reading, chance: float) -> bool:
    from scipy.stats import binomtest

    low, high = binomtest(reading.correct, reading.total).proportion_ci(0.99)
    return bool(low <= chance and high <= chance + NEAR)


def _sentence(
    configured: Reading, other: Reading | None, chance: float, *, better: bool, near: bool, tried: int
) -> str:
    rate = f"{configured.accuracy:.0%} of {configured.total} sampled members correctly"
    if better and other is not None:
        likely = "probably" if other.accuracy > 2 / 3 else "possibly"
        return (
            f"the target classifies only {rate} as configured, but {other.accuracy:.0%} with {other.name}, which is "
            f"{likely} how it was trained; add {other.option}"
        )
    if near:
        return (
            f"the target classifies only {rate}, as expected by chance ({chance:.0%}), and none of {tried} other "
            "readings is better; check its weights, --data.mean, --data.std, --data.resize and the order of the "
            "classes before any conclusion about membership"
        )
    compared = f"none of {tried} other readings of the files is better" if tried else "no other reading was needed"
    return f"the target classifies {rate} (chance {chance:.0%}); {compared}"
