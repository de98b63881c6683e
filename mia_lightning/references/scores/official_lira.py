"""Scores of the published LiRA code, for comparison with published tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mia_lightning.errors import MIAError
from mia_lightning.references.moments import Array, Mask, blocks, masked_median
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore


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
        spreads = (
            [self._spread(reference_outputs, number, least[number]) for number in (0, 1)]
            if self.fixed_variance
            else None
        )
        score = np.empty(len(reference_outputs))
        for rows in blocks(reference_outputs):
            phi, target = (
                reference_outputs.references[:, rows].astype(np.float64),
                reference_outputs.target[rows].astype(np.float64),
            )
            in_out_masks = [
                self._cut(mask, least[number]) for number, mask in enumerate(reference_outputs.in_out_masks(rows))
            ]
            spread = None if spreads is None else spreads[0 if self.mode == "online" else 1]
            out_ = _log_normal(target, phi, in_out_masks[1], spread)
            in_ = _log_normal(target, phi, in_out_masks[0], spread) if self.mode == "online" else 0.0
            score[rows] = np.mean(in_ - out_, axis=-1)
        return {"": score}

    def _cut(self, mask: Mask, least: int) -> Mask:
        return mask & (np.cumsum(mask, axis=0) <= least) if self.cut else mask

    def _spread(self, reference_outputs: ReferenceOutputs, number: int, least: int) -> float:
        """Return the standard deviation over everything on one side, in two passes."""
        total, squares, n = 0.0, 0.0, 0
        for rows in blocks(reference_outputs):
            chosen = reference_outputs.references[:, rows][
                self._cut(reference_outputs.in_out_masks(rows)[number], least)
            ].astype(np.float64)
            total, n = total + float(chosen.sum()), n + chosen.size
        mean = total / max(n, 1)
        for rows in blocks(reference_outputs):
            chosen = reference_outputs.references[:, rows][
                self._cut(reference_outputs.in_out_masks(rows)[number], least)
            ].astype(np.float64)
            squares += float(((chosen - mean) ** 2).sum())
        return float(np.sqrt(squares / max(n, 1)))


def _log_normal(target: Array, phi: Array, mask: Mask, spread: float | None) -> Array:
    """Return the log density of the target under each record's normal, (n, Q)."""
    shown = mask[..., None]
    n = mask.sum(axis=0)[:, None]
    mean = np.where(shown, phi, 0.0).sum(axis=0) / n
    deviation = np.sqrt(np.where(shown, (phi - mean) ** 2, 0.0).sum(axis=0) / n)
    scale = (deviation if spread is None else spread) + 1e-30
    return np.asarray(
        -0.5 * ((target - masked_median(phi, shown)) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    )
