"""Check of the target's inputs and labels: its accuracy on known members, as configured and under other readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reading:
    """One way of presenting the records to the target, and the accuracy it gives."""

    name: str
    """What differs from the configured reading, such as "no normalization"."""

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

    best_other: Reading | None
    """The other reading with the highest accuracy on the members; None where none was evaluated."""

    readings: int = 0
    """Number of other readings that were evaluated."""

    forward_passes: int = 0
    """Images that were run through the network: the cost of the check."""
