"""Scores of the published LiRA code, for comparison with published tables."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.moments import Array, Mask, blocks, masked_median
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.target_pool import TargetPool, without_each


@dataclass
class OfficialLiRA(ReferenceScore):
    """LiRA as its authors' code has it (Carlini et al. 2022, code release), not as their paper.

    Medians as centers, standard deviations with ddof 0 plus 1e-30, each query on its own and the mean over queries of
    their log ratios. Offline is two-sided there: it ranks a record high that fits worse than non-members do, too. Use
    `LiRA` for anything but reproduction.
    """

    mode: Literal["online", "offline"] = "online"
    """Whether references IN the record are compared too."""

    fixed_variance: bool = False
    """Whether one standard deviation over all records, references and queries is used; online it is that of the IN side
    for both sides."""

    cut: bool = True
    """Whether every record is cut to the smallest number of references IN and OUT that any record has."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the score.

        Raises:
            MIAError: a record without references on a side that is compared.
        """
        counts = [mask.sum(axis=0) for mask in reference_outputs.in_out_masks(slice(None))]
        least = [int(count.min()) for count in counts]
        if least[1] == 0 or (self.mode == "online" and least[0] == 0):
            name = "OUT" if least[1] == 0 else "IN"
            raise MIAError(f"some records have no reference {name}; train more references, or use LiRA")
        side = 0 if self.mode == "online" else 1
        spread = self._spread(reference_outputs, side, least[side]) if self.fixed_variance else None
        score = np.empty(len(reference_outputs))
        for rows in blocks(reference_outputs):
            phi, target = (
                reference_outputs.references[:, rows].astype(np.float64),
                reference_outputs.target[rows].astype(np.float64),
            )
            in_out_masks = [
                self._cut(mask, least[number]) for number, mask in enumerate(reference_outputs.in_out_masks(rows))
            ]
            out_ = _log_normal(target, phi, in_out_masks[1], spread)
            in_ = _log_normal(target, phi, in_out_masks[0], spread) if self.mode == "online" else 0.0
            score[rows] = np.mean(in_ - out_, axis=-1)
        return {"": score}

    def of_targets(self, pool: TargetPool) -> NDArray[np.float64]:
        """Return the score of every model as target, (K, N); in one pass where all counts IN and OUT are equal."""
        if pool.partner is None:
            return super().of_targets(pool)
        online = self.mode == "online"
        score, spread = np.empty(pool.keep.shape), np.zeros((2, len(pool)))
        total = pool.keep.shape[1] * pool.outputs.references.shape[2] * (len(pool) // 2 - 1)
        for rows, stored, keep in pool.blocks():
            phi = stored.astype(np.float64)
            median, mean, square = _own_side(phi, keep)
            medians, means, squares = (pool.sides(v, (v[0], v[0]), rows) for v in (median, mean, square))
            side = 0 if online else 1
            if self.fixed_variance:
                spread[0] += means[side].sum(axis=(1, 2)) * (len(pool) // 2 - 1)
                spread[1] += squares[side].sum(axis=(1, 2)) * (len(pool) // 2 - 1)
                logs = [-0.5 * (phi - center) ** 2 for center in medians]
            else:
                scales = [np.sqrt(np.maximum(s - m**2, 0.0)) + 1e-30 for m, s in zip(means, squares, strict=True)]
                logs = [-0.5 * ((phi - c) / s) ** 2 - np.log(s) for c, s in zip(medians, scales, strict=True)]
            score[:, rows] = np.mean((logs[0] if online else 0.0) - logs[1], axis=-1)
        if self.fixed_variance:
            scale = np.sqrt(spread[1] / total - (spread[0] / total) ** 2) + 1e-30
            score = score / scale[:, None] ** 2
        if not online:  # the constant of one log density
            score += 0.5 * np.log(2 * np.pi) + (np.log(scale)[:, None] if self.fixed_variance else 0.0)
        return score

    def _cut(self, mask: Mask, least: int) -> Mask:
        if not self.cut or mask.sum(axis=0).max(initial=0) <= least:
            return mask
        return mask & (np.cumsum(mask, axis=0) <= least)

    def _spread(self, reference_outputs: ReferenceOutputs, number: int, least: int) -> float:
        """Return the standard deviation over everything on one side."""
        near = float(reference_outputs.references[0, 0, 0])  # sums of distances from a value near all lose no digits
        total, squares, n = 0.0, 0.0, 0
        for rows in blocks(reference_outputs):
            mask = self._cut(reference_outputs.in_out_masks(rows)[number], least)
            gaps = np.subtract(reference_outputs.references[:, rows], near, dtype=np.float64)
            gaps *= mask[..., None]
            total, n = total + float(gaps.sum()), n + int(mask.sum()) * gaps.shape[2]
            squares += float(np.vdot(gaps, gaps))
        return float(np.sqrt(max(squares / max(n, 1) - (total / max(n, 1)) ** 2, 0.0)))


def _own_side(phi: Array, keep: Mask) -> tuple[Array, Array, Array]:
    """Return median, mean and mean square of each model's own side of each record without the model, (K, n, Q)."""
    median, mean, square = np.empty_like(phi), np.empty_like(phi), np.empty_like(phi)
    for mask in (keep, ~keep):
        shown = mask[..., None]
        n = int(mask[:, 0].sum())
        ordered = np.sort(np.where(shown, phi, np.inf), axis=0)[:n]
        median = np.where(shown, _median_without(phi, ordered), median)
        mean = np.where(shown, without_each(phi, mask) / (n - 1), mean)
        square = np.where(shown, without_each(phi * phi, mask) / (n - 1), square)
    return median, mean, square


def _median_without(phi: Array, ordered: Array) -> Array:
    """Return the median of n sorted values (n, ...) without each of the values phi (K, ...) in turn."""
    n = len(ordered)
    half = n // 2
    if n % 2 == 0:  # an odd number remains, whose middle is one of two values
        return np.asarray(np.where(phi <= ordered[half - 1], ordered[half], ordered[half - 1]))
    middle = ordered[half]
    below = np.where(phi > middle, middle, ordered[min(half + 1, n - 1)])
    above = np.where(phi < middle, middle, ordered[half - 1])
    return np.asarray((below + above) / 2)


def _log_normal(target: Array, phi: Array, mask: Mask, spread: float | None) -> Array:
    """Return the log density of the target under each record's normal, (n, Q)."""
    shown = mask[..., None]
    if spread is None:
        n = mask.sum(axis=0)[:, None]
        mean = np.where(shown, phi, 0.0).sum(axis=0) / n
        scale = np.sqrt(np.where(shown, (phi - mean) ** 2, 0.0).sum(axis=0) / n) + 1e-30
    else:
        scale = np.full(phi.shape[1:], spread + 1e-30)
    return np.asarray(
        -0.5 * ((target - masked_median(phi, shown)) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    )
