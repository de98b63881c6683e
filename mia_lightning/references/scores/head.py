"""A classifier learned on the references, each a target of known membership; no membership of the target is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.moments import Array, Mask, group_moments, reduce_queries
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.probabilities import log_probability
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.scores.reference_features import pooled
from mia_lightning.references.variances import prior_of, shrink_variance

FOLDS = 3
"""Folds of the records: a record is scored by trees that were fitted on other records."""

LEAST_ROWS = 20
"""Fewest IN or OUT rows to fit on."""

COMPLEMENTARY = -0.5
"""Correlation of two rows of `keep` below which one reference predicts the membership in the other."""


@dataclass
class ReferenceHead(ReferenceScore):
    """Log-odds of gradient-boosted trees fitted on references as targets; no known member of the target is needed.

    Each reference is compared with the others as the target is, and its training records are known: K references are
    K N labeled rows (after Shokri et al. 2017, "Membership Inference Attacks Against Machine Learning Models", with
    the comparisons of Carlini et al. 2022 and Zarifzadeh et al. 2024 as inputs). A complementary reference, trained on
    exactly the other records, is left out, and each record is compared with equally many references IN and OUT, drawn
    at random: otherwise the label would follow from their numbers. Trees score other records than they are fitted on.
    The target is scored once in the place of each reference, compared with the same others, and the mean is taken.
    """

    pseudo_targets: int = 8
    """Most references that the trees are fitted on; all references are compared with."""

    n_estimators: int = 150
    """Number of boosting rounds."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the mean log-odds; records that lack a reference IN or OUT get the median.

        With one or two references there is nothing to compare one of them with, and the trees read its own phi alone.

        Raises:
            MIAError: fewer than 20 rows IN or OUT to fit on.
        """
        order = reference_outputs.content_order()
        sources = _Sources(reference_outputs.records(order))
        count = min(self.pseudo_targets, len(reference_outputs.references))
        comparisons = [sources.comparison(number) for number in range(count)]
        if any(used.covered.any() for used in comparisons):
            comparisons = [used for used in comparisons if used.covered.any()]
        fold = np.random.default_rng(0).permutation(len(order)) % FOLDS
        total, counted = np.zeros(len(order)), np.zeros(len(order))
        for held_out in range(FOLDS):
            trees = self._fit(sources, comparisons, fold != held_out)
            for used in comparisons:
                rows = np.flatnonzero(used.usable & (fold == held_out))
                if len(rows):
                    total[rows] += trees.predict(sources.columns(sources.target, used)[rows], raw_score=True)
                    counted[rows] += 1
        score = np.empty(len(order))
        score[order] = np.where(
            counted > 0, total / np.maximum(counted, 1), np.median(total[counted > 0] / counted[counted > 0])
        )
        return {"": score}

    def _fit(self, sources: _Sources, comparisons: list[_Comparison], in_folds: Mask) -> Any:
        import lightgbm

        inputs, labels = [], []
        for used in comparisons:
            rows = used.usable & used.labeled & in_folds
            inputs.append(sources.columns(sources.references[:, used.number], used)[rows])
            labels.append(sources.keep[used.number][rows])
        label = np.concatenate(labels)
        if min(int(label.sum()), int((~label).sum())) < LEAST_ROWS:
            raise MIAError(
                f"it is fitted on rows IN and OUT of the references and needs {LEAST_ROWS} of each; give more records"
            )
        options = {
            "objective": "binary",
            "learning_rate": 0.05,
            "num_leaves": 15,
            "min_data_in_leaf": min(100, len(label) // 20),
            "feature_fraction": 0.5,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "seed": 0,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(np.concatenate(inputs), label=label, params={"verbosity": -1})
        return lightgbm.train(options, data, num_boost_round=self.n_estimators)


@dataclass(frozen=True, eq=False)
class _Comparison:
    """References that one of them, and the target in its place, is compared with."""

    number: int
    """The reference."""

    in_: Mask
    """(K, N) references IN of each record that are used."""

    out_: Mask
    """(K, N) as many references OUT."""

    labeled: Mask
    """(N,) whether the reference's own membership was drawn by chance."""

    @property
    def covered(self) -> Mask:
        """(N,) whether any are used."""
        return np.asarray(self.in_.any(axis=0))

    @property
    def usable(self) -> Mask:
        """(N,) the records that have as much to be compared with as the most of them: something, or nothing at all."""
        return self.covered if self.covered.any() else np.ones(len(self.labeled), bool)


class _Sources:
    """Statistics of the views of every model on records in the order of their content."""

    def __init__(self, reference_outputs: ReferenceOutputs) -> None:
        self.in_, self.out_ = reference_outputs.in_out_masks(slice(None))
        self.keep = reference_outputs.keep
        self.target = _statistics(reference_outputs.target)
        self.references = np.stack([_statistics(phi) for phi in reference_outputs.references], axis=1)
        """(S, K, N)."""

    def comparison(self, number: int) -> _Comparison:
        """Return the references that are compared with a reference, equally many on each side of a record."""
        use = ~self._complements(number)
        use[number] = False
        in_, out_ = self.in_ & use[:, None], self.out_ & use[:, None]
        count = np.minimum(in_.sum(axis=0), out_.sum(axis=0))
        rank = np.random.default_rng(number).random(self.keep.T.shape).T  # in the order of the records
        in_, out_, labeled = _lowest(rank, in_, count), _lowest(rank, out_, count), self.in_[number] | self.out_[number]
        return _Comparison(number, in_, out_, labeled)

    def _complements(self, number: int) -> Mask:
        """Return (K,) which references were trained on the records that this one was not."""
        drawn = self.in_ | self.out_
        result = np.zeros(len(self.keep), bool)
        for other in range(len(self.keep)):
            both = drawn[number] & drawn[other]
            first, second = self.keep[number][both], self.keep[other][both]
            varied = len(first) > 0 and 0 < first.mean() < 1 and 0 < second.mean() < 1
            result[other] = varied and float(np.corrcoef(first, second)[0, 1]) < COMPLEMENTARY
        return result

    def columns(self, model: Array, used: _Comparison) -> NDArray[np.float32]:
        """Return (N, F) inputs: a model's statistics (S, N), compared with those of the references used."""
        parts = []
        for phi, references in zip(model, self.references, strict=True):
            parts.append(phi)
            if not used.covered.any():
                continue
            in_, out_ = group_moments(references, used.in_), group_moments(references, used.out_)
            parts += [phi - out_.mean, phi - in_.mean, in_.mean - out_.mean]
            within = pooled(in_, out_)
            if within.degrees_of_freedom.any():
                variance = shrink_variance(within, prior_of(within))[0]
                ratio = ((phi - out_.mean) ** 2 - (phi - in_.mean) ** 2) / (2 * variance)
                highest = np.where(used.out_, references, -np.inf).max(axis=0)
                lowest = np.where(used.in_, references, np.inf).min(axis=0)
                parts += [ratio, (phi - out_.mean) / np.sqrt(variance), phi - highest, phi - lowest]
        return np.asarray(np.nan_to_num(np.stack(parts, axis=1).astype(np.float32)))


def _lowest(rank: Array, mask: Mask, count: NDArray[np.int64]) -> Mask:
    """Return the `count` masked entries of each column that rank lowest."""
    return mask & (np.where(mask, rank, 2.0).argsort(axis=0).argsort(axis=0) < count)


def _statistics(phi: NDArray[np.float32]) -> Array:
    """Return (S, N) statistics of (N, Q) phi, in float64."""
    queries = phi.shape[-1]
    log_p = log_probability(phi).mean(axis=-1)
    parts = [reduce_queries(phi, "mean"), log_p]
    parts += [reduce_queries(phi, "original")] if queries > 1 else []
    parts += [reduce_queries(phi, "contrast"), reduce_queries(phi, "spread")] if queries > 2 else []
    return np.stack(parts)
