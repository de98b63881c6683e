"""Distance to the decision boundary from labels alone: HopSkipJump on a sample of records."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""Class numbers (B,) of inputs (B, ...)."""

BISECTIONS = 8
"""Queries of a search along a line, which find the boundary to 1/256 of its length."""

HALVINGS = 4
"""Queries of the search for a step that stays on the other side of the boundary."""

FIRST = 10
"""Directions that the first iteration probes; iteration t probes sqrt(t) as many."""


@dataclass(frozen=True, eq=False)
class BoundaryDistances:
    """Distances of R records."""

    distances: Tensor
    """(R,) L2 to the nearest point found that gets another label, in standard deviations of the inputs; 0 for records
    that the target misclassifies, infinite where no input with another label was found."""

    queries: int
    """Queries per record, at most the budget."""


def boundary_distances(
    predict: Predict, inputs: Tensor, labels: Tensor, starts: Tensor, *, budget: int, seed: int
) -> BoundaryDistances:
    """Return each record's distance to the boundary of its own class.

    Chen et al. 2020, "HopSkipJumpAttack", with the distance as the membership score (Choquette-Choo et al. 2021, Li and
    Zhang 2021). All records advance together: the nearest given input with another label, then in turn a bisection to
    the boundary, an estimate of its normal from probes at both sides of it, and the largest step along it.

    Args:
        predict: The target's predicted class.
        inputs: (R, ...) floating-point records.
        labels: (R,) their classes.
        starts: (S, ...) inputs to start from, of any class; one query each, shared by all records.
        budget: Most queries per record.
        seed: Of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = inputs.std().clamp(min=1e-12)
    low, high = inputs.amin(), inputs.amax()
    predicted = predict(inputs)
    wrong = predicted != labels
    distance, point = _nearest_start(inputs, labels, starts, predict(starts))
    no_start, used = distance.isinf(), 1

    def crossed(points: Tensor, rows: Tensor) -> Tensor:
        return predict(points) != labels[rows]

    every = torch.arange(len(inputs))
    iteration = 0
    while used + BISECTIONS <= budget:
        point = _bisected(inputs, point, every, crossed)
        used += BISECTIONS
        distance = torch.minimum(distance, _norm(point - inputs))
        iteration += 1
        probes = min(int(FIRST * iteration**0.5), budget - used - HALVINGS - BISECTIONS)
        if probes < 2:
            break
        normal = _normal(point, inputs, probes, crossed, generator, (low, high))
        used += probes + HALVINGS
        point = _stepped(point, inputs, normal, iteration, crossed, (low, high))
    distance = torch.where(no_start, torch.full_like(distance, torch.inf), distance / scale)
    distance = torch.where(wrong, torch.zeros_like(distance), distance)
    return BoundaryDistances(distance, used)


def _norm(values: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """Return (R,) values with the axes of (R, ...)."""
    return values.view(-1, *([1] * (like.ndim - 1)))


def _nearest_start(inputs: Tensor, labels: Tensor, starts: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance to, and the nearest start of another class; infinite, and the record itself, without one."""
    apart = torch.cdist(inputs.flatten(1), starts.flatten(1))
    apart = apart.masked_fill(predicted[None, :] == labels[:, None], torch.inf)
    distance, index = apart.min(dim=1)
    point = torch.where(_spread(distance.isinf(), inputs), inputs, starts[index])
    return distance, point


def _bisected(inputs: Tensor, point: Tensor, rows: Tensor, crossed: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the point between each record and its point, just across the boundary."""
    near, far = torch.zeros(len(inputs)), torch.ones(len(inputs))
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        share = _spread(middle, inputs)
        is_across = crossed(inputs + share * (point - inputs), rows)
        near, far = torch.where(is_across, near, middle), torch.where(is_across, middle, far)
    return inputs + _spread(far, inputs) * (point - inputs)


def _normal(
    point: Tensor,
    inputs: Tensor,
    probes: int,
    crossed: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator,
    bounds: tuple[Tensor, Tensor],
) -> Tensor:
    """Return unit vectors (R, ...) towards the other side, from the labels of random probes around the points."""
    size = inputs[0].numel()
    radius = (_norm(point - inputs) / size**0.5).clamp(min=1e-6)
    total = torch.zeros_like(point)
    directions, signs = [], []
    for _ in range(probes):
        direction = torch.randn(point.shape, generator=generator)
        direction = direction / _spread(_norm(direction), point)
        probe = (point + _spread(radius, point) * direction).clamp(*bounds)
        direction = (probe - point) / _spread(radius, point)
        directions.append(direction)
        signs.append(crossed(probe, torch.arange(len(point))).float() * 2 - 1)
    mean = torch.stack(signs).mean(dim=0)
    for direction, sign in zip(directions, signs, strict=True):
        weight = torch.where(mean.abs() == 1, mean, sign - mean)
        total += _spread(weight, point) * direction
    return total / _spread(_norm(total).clamp(min=1e-12), point)


def _stepped(
    point: Tensor,
    inputs: Tensor,
    normal: Tensor,
    iteration: int,
    crossed: Callable[[Tensor, Tensor], Tensor],
    bounds: tuple[Tensor, Tensor],
) -> Tensor:
    """Return each point moved along its normal by the largest of the halved steps that stays across the boundary."""
    step = _norm(point - inputs) / iteration**0.5
    result, done = point, torch.zeros(len(point), dtype=torch.bool)
    for _ in range(HALVINGS):
        candidate = (point + _spread(step, point) * normal).clamp(*bounds)
        is_across = crossed(candidate, torch.arange(len(point))) & ~done
        result = torch.where(_spread(is_across, point), candidate, result)
        done |= is_across
        step = step / 2
    return result
