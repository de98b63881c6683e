"""Search of a better reading: outputs of the target on a sample of the records under many readings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mia_lightning.targets.alternatives import Alternative, class_orders
from mia_lightning.targets.architectures import set_stem
from mia_lightning.targets.base import Target
from mia_lightning.targets.wrapper import TargetNetwork, unwrap

Mask = NDArray[np.bool_]

BATCH = 128
"""Images per forward pass."""

FEWEST, MOST = 32, 128
"""Images that screen one reading."""

COMPLETE = 3
"""Readings of the smallest loss that are evaluated on the complete sample."""

NORMALIZATIONS = 2
"""Normalizations that are combined with sizes, channel orders and first layers."""

WORST = 5.0
"""Cross-entropy above which a record counts as this, so that a few records do not decide."""

DENSE = 4.0
"""Pixels of a reading, relative to the configured one, above which it is evaluated on fewer records."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The target's outputs on the sample under one reading."""

    reading: Alternative
    rows: Mask
    """(N,) records that were evaluated."""

    correct: Mask
    """(N,) records that are classified correctly."""

    phi: NDArray[np.float64]
    """(N,) logit-scaled confidence in the label; NaN in rows that were not evaluated."""

    def loss(self, rows: Mask) -> float:
        """Return the mean cross-entropy over some of the records, each at most `WORST`."""
        values = np.logaddexp(0, -self.phi[rows & self.rows])
        return float(np.minimum(values, WORST).mean()) if len(values) else WORST


class Evaluator:
    """Outputs of a target on a sample under any reading, on one device; a context manager.

    Args:
        target: Its network comes back to the CPU at the end.
        images: (N, C, H, W) as stored.
        mean: Of the configured normalization.
        std: Standard deviation per channel.
        device: Of torch.
    """

    def __init__(
        self, target: Target, images: NDArray[np.generic], mean: Sequence[float], std: Sequence[float], device: str
    ) -> None:
        self.target, self.mean, self.std = target, tuple(mean), tuple(std)
        self.images = torch.from_numpy(np.ascontiguousarray(images))
        if mean:
            self.images = self.images.float() / (255.0 if images.dtype == np.uint8 else 1.0)
        self.device, self.passes = torch.device(device), 0.0

    def __enter__(self) -> Evaluator:
        self.target.network.to(self.device)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.target.network.to("cpu")

    def inputs(self, count: int) -> Tensor:
        """Return the first images, normalized as configured, on the device."""
        return self._normalized(self.images[:count], self.mean, self.std)

    def logits(self, reading: Alternative, count: int | None = None) -> Tensor:
        """Return the logits (count, classes) of the first images under a reading, in float64 on the CPU.

        Raises:
            RuntimeError, ValueError: the network does not take images of this size.
        """
        images, network = self.images[:count], self._network(reading)
        self.passes += len(images) * reading.cost
        mean, std = reading.mean or self.mean, reading.std or self.std
        with torch.inference_mode():
            batches = [network(self._normalized(batch, mean, std)).cpu() for batch in torch.split(images, BATCH)]
        return torch.cat(batches).double()

    def outcome(self, reading: Alternative, labels: NDArray[np.int64], count: int | None = None) -> Outcome | None:
        """Return the outputs on the first `count` records, None where the network does not take them."""
        try:
            logits = self.logits(reading, count)
        except Exception:
            return None
        return outcome_of(reading, logits, labels)

    def _normalized(self, images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        if not mean:  # records that are passed on as they are stored
            return images.to(self.device)
        center, spread = (images.new_tensor(values, device=self.device).view(1, -1, 1, 1) for values in (mean, std))
        return (images.to(self.device) - center) / spread

    def _network(self, reading: Alternative) -> nn.Module:
        if not reading.changes_network:
            return self.target.network
        network, form = unwrap(self.target.network), self.target.form
        if reading.network is not None:
            network = unwrap(reading.network).to(self.device)
        if reading.stem is not None:
            network = copy.deepcopy(network)
            set_stem(network, reading.stem)
        form = replace(form, resize=reading.resize or form.resize, transform=reading.transform or form.transform)
        return TargetNetwork(network, form)


def confidence(logits: Tensor, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the logit-scaled confidence (N,) of logits (N, K) in the labels (N,)."""
    index = torch.from_numpy(labels).long().unsqueeze(1)
    other_classes = logits.scatter(1, index, -torch.inf).logsumexp(dim=1)
    return (logits.gather(1, index).squeeze(1) - other_classes).numpy()


def outcome_of(reading: Alternative, logits: Tensor, labels: NDArray[np.int64]) -> Outcome:
    """Return an outcome from the logits (n, K) of the first n records, n <= N, and the labels (N,)."""
    rows, correct, phi = np.zeros(len(labels), bool), np.zeros(len(labels), bool), np.full(len(labels), np.nan)
    count = len(logits)
    rows[:count] = True
    correct[:count] = logits.argmax(dim=1).numpy() == labels[:count]
    phi[:count] = confidence(logits, labels[:count])
    return Outcome(reading, rows, correct, phi)


def search(
    evaluator: Evaluator,
    configured: Outcome,
    readings: Sequence[Alternative],
    labels: NDArray[np.int64],
    members: Mask,
    budget: int,
    limit: int,
) -> list[Outcome]:
    """Return the outputs under each reading that the network takes.

    Every reading is screened on the first records. Normalizations of a smaller loss on members than the configured one
    are combined with the other readings, since a resize is seldom the only difference. Training minimized the loss on
    members, so the readings where it is smallest, and the best size, are then evaluated on all records.

    Args:
        evaluator: Of the sample.
        configured: Outputs as configured.
        readings: Those that change the network's inputs, its first layers or its weights.
        labels: (N,) of the sample, in random order.
        members: (N,).
        budget: Images of the configured size that the search may cost before the best readings are evaluated.
        limit: Images that the evaluator may have queried at the end.
    """
    count = int(np.clip(budget / 4 / max(sum(reading.cost for reading in readings), 1), FEWEST, MOST))
    outcomes = _screened(evaluator, readings, labels, count)
    combined: list[Alternative] = []
    normalizations = [outcome for outcome in outcomes if outcome.reading.is_normalization]
    for outcome in sorted(normalizations, key=lambda outcome: outcome.loss(members))[:NORMALIZATIONS]:
        if outcome.loss(members) < configured.loss(members & outcome.rows):
            combined += [outcome.reading.combined(other) for other in readings if other.combines]
    spent = evaluator.passes + np.cumsum([FEWEST * reading.cost for reading in sorted(combined, key=_cost)])
    reserved = (COMPLETE + DENSE) * len(labels)
    combined = [r for r, total in zip(sorted(combined, key=_cost), spent, strict=True) if total + reserved <= budget]
    outcomes += _screened(evaluator, combined, labels, FEWEST)
    outcomes.sort(key=lambda outcome: outcome.loss(members))
    lower = [outcome for outcome in outcomes if outcome.loss(members) < configured.loss(members & outcome.rows)]
    sizes = [outcome for outcome in lower if outcome.reading.resize and outcome.reading.combines][:1]
    complete = {id(outcome): outcome for outcome in (*sizes, *lower[:COMPLETE])}
    for key, outcome in complete.items():
        affordable = int((limit - evaluator.passes) / outcome.reading.cost)
        count = min(_complete_count(len(labels), outcome.reading), affordable)
        if count > outcome.rows.sum():
            complete[key] = evaluator.outcome(outcome.reading, labels, count) or outcome
    return [complete.get(id(outcome), outcome) for outcome in outcomes]


def _screened(
    evaluator: Evaluator, readings: Sequence[Alternative], labels: NDArray[np.int64], count: int
) -> list[Outcome]:
    outcomes = [
        evaluator.outcome(r, labels, max(FEWEST, int(count / r.cost)) if r.cost > 2 else count) for r in readings
    ]
    return [outcome for outcome in outcomes if outcome is not None]


def _cost(reading: Alternative) -> float:
    return reading.cost


def _complete_count(count: int, reading: Alternative) -> int:
    return count if reading.cost <= DENSE else max(MOST, int(count * DENSE / reading.cost))


def class_order_outcomes(logits: Tensor, labels: NDArray[np.int64], target: Target) -> list[Outcome]:
    """Return the outcomes under other orders of the classes, from the logits (N, K) as configured."""
    outcomes = []
    for reading, order, rows in class_orders(logits.argmax(dim=1).numpy(), labels, target):
        outcome = outcome_of(reading, logits, order[labels])
        outcomes.append(replace(outcome, rows=rows, correct=outcome.correct & rows))
    return outcomes
