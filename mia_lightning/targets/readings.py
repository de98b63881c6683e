"""Check of the target's inputs and labels: its accuracy on known members, as configured and under other readings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from mia_lightning.records.records import Records
    from mia_lightning.targets.base import Target
    from mia_lightning.targets.reading_search import Outcome

MOST = 512
"""Records that are sampled, at least half of them members where there are so many."""

FEWEST = 20
"""Labeled members without which the check does not run."""

GAIN = 0.05
"""Gain of accuracy below which the separation of members and non-members is stated instead."""

COST = 0.1
"""Of the cost of an extraction with 18 views, an upper bound of the check's, where that is above `LEAST` images."""

LEAST, COMPLETED = 6000, 2000
"""Images of the configured size that the search of a reading may cost at least, and the additional ones for evaluating
the best readings on the complete sample: 8,000 in all."""

SINGLE_CLASS = (
    "all sampled records have one label, so that accuracy cannot show whether the target is queried as it was trained; "
    "attacks without success are no evidence of safety here"
)


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

    A target fits its own training records best when they are presented as in training. With `status == "warn"` the
    configured reading is probably not that of the training: no verdict about membership, in either direction, may be
    shown without `sentence` above it. With "chance" the target predicts no better than chance under every reading,
    as a weak target does, and one that is read in a way not among those: attacks without success are no evidence then.
    """

    status: Literal["pass", "chance", "warn"]

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
    """Images of the configured size that were run through the network: the cost of the check."""


def check_readings(
    target: Target,
    public: Records,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    records: int | None = None,
    device: str = "cpu",
    weight_sets: Callable[[], Mapping[str, nn.Module]] | None = None,
) -> ReadingCheck | None:
    """Evaluate the target's accuracy on known members as configured and under other readings of the same files.

    Other readings are the usual normalizations and scales, sizes, channel orders, first layers, combinations of a
    normalization with these, other sets of weights, and orders of the classes; `reading_rules` has the rules.

    Args:
        target: From `load_target`.
        public: Records of known membership; those without a label are left out.
        mean: Of the configured normalization, per channel.
        std: Standard deviation per channel.
        records: Number of records in the run, which bounds the cost; None is that of the public ones.
        device: Of torch, where the network runs meanwhile.
        weight_sets: Returns the target with other sets of weights of its file, by their `--target.weights`.

    Returns:
        None with fewer than 20 labeled members.
    """
    from mia_lightning.targets.alternatives import Alternative, alternatives, other_weights
    from mia_lightning.targets.reading_rules import better_reading, is_near_chance, reveals_all
    from mia_lightning.targets.reading_search import Evaluator, class_order_outcomes, outcome_of, search

    rows, labels = _sample(public)
    members = public.membership[rows] == 1
    if members.sum() < FEWEST:
        return None
    with Evaluator(target, public.images[rows], mean, std, device) as evaluator:
        as_configured = Alternative("as configured", "")
        logits = evaluator.logits(as_configured)
        configured = outcome_of(as_configured, logits, labels)
        tried: list[Outcome] = []
        if not reveals_all(configured, members) and len(np.unique(labels)) > 1:  # a constant fits a single class
            tried = class_order_outcomes(logits, labels, target)
            readings = [*other_weights(weight_sets() if weight_sets else {}), *alternatives(target, public, mean, std)]
            limit = max(LEAST + COMPLETED, int(COST * 18 * (records or len(public))))
            tried += search(evaluator, configured, readings, labels, members, limit - COMPLETED - len(rows), limit)
        passes = int(evaluator.passes)
    probabilities = logits.softmax(dim=1).numpy()
    chance = _chance(probabilities.argmax(axis=1), labels, target.num_classes)
    shown = _shown(configured, members)
    other = better_reading(configured, tried, probabilities, labels, members, chance)
    near = is_near_chance(shown.correct, shown.total, chance)
    status: Literal["pass", "chance", "warn"] = "warn" if other is not None else "chance" if near else "pass"
    sentence = _sentence(configured, other, members, chance, near=near, tried=len(tried))
    if len(np.unique(labels)) == 1:
        status, sentence = "chance", SINGLE_CLASS
    non_members = float(configured.correct[~members].mean()) if (~members).any() else float("nan")
    return ReadingCheck(status, sentence, shown, non_members, chance, len(tried), passes)


def _sample(public: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows of labeled members and non-members in random order, drawn with a fixed seed, and their labels."""
    rng = np.random.default_rng(0)
    labeled = public.labels >= 0
    members, non_members = (rng.permutation(np.flatnonzero(labeled & (public.membership == m))) for m in (1, 0))
    members = members[: MOST - min(len(non_members), MOST // 2)]
    rows = rng.permutation(np.concatenate([members, non_members[: MOST - len(members)]]))
    return rows, np.asarray(public.labels[rows])


def _chance(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """Return the accuracy expected of predictions that are independent of the labels."""
    shares = [np.bincount(values, minlength=classes)[:classes] / len(values) for values in (predicted, labels)]
    return float(shares[0] @ shares[1])


def _shown(outcome: Outcome, members: NDArray[np.bool_]) -> Reading:
    rows = outcome.rows & members if (outcome.rows & members).any() else outcome.rows
    return Reading(outcome.reading.name, outcome.reading.option, int(outcome.correct[rows].sum()), int(rows.sum()))


def _sentence(
    configured: Outcome, other: Outcome | None, members: NDArray[np.bool_], chance: float, *, near: bool, tried: int
) -> str:
    from mia_lightning.targets.reading_rules import separation

    shown = _shown(configured, members)
    rate = f"{shown.accuracy:.0%} of {shown.total} sampled members correctly"
    if other is not None:
        better = _shown(other, members)
        likely = "probably" if better.accuracy > 2 / 3 else "possibly"
        ending = f"with {better.name}, which is {likely} how it was trained; add {better.option}"
        if better.accuracy - shown.accuracy < GAIN:
            separated = (separation(outcome, members) for outcome in (other, configured))
            first, second = (f"{value:.2f}" for value in separated)
            return f"the target's confidence separates members better (AUC {first} instead of {second}) {ending}"
        return f"the target classifies only {rate} as configured, but {better.accuracy:.0%} {ending}"
    if near:
        return (
            f"the target classifies only {rate}, as expected by chance ({chance:.0%}), and {tried} other readings are "
            "no better: a weak target, or other weights, normalization, size or order of the classes than in training; "
            "attacks without success are no evidence of safety here"
        )
    compared = f"none of {tried} other readings of the files is better" if tried else "no other reading was needed"
    return f"the target classifies {rate} (chance {chance:.0%}); {compared}"
