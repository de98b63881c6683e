"""RMIA and BASE: the probability of the true class against its mean over references."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.moments import Array, Mask, blocks, group_moments
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.probabilities import Probabilities, log_probability
from mia_lightning.references.scores.base import Columns, ReferenceScore
from mia_lightning.references.target_pool import TargetPool
from mia_lightning.references.variances import standard_error_of_mean

GRID: tuple[float, ...] = tuple(step / 10 for step in range(11))
GAMMAS = (1.0, 1.5, 2.0, 4.0)
"""Values of a and of gamma that are tried."""


@dataclass
class RMIA(ReferenceScore):
    """Robust membership inference (Zarifzadeh et al. 2024, "Low-Cost High-Power Membership Inference Attacks").

    Ranks by log R(x) = log p(y | x) - log mean_k p_k(y | x), in the log domain and averaged over the queries. The share
    of the population that the record dominates (their eq. 3), which ranks the same up to ties, is the suffix
    "dominance_share". Deviations: the mean over queries instead of a majority vote; the population is all records,
    taken as OUT as the authors do.
    """

    mode: Literal["online", "offline"] = "online"
    """offline has references OUT only, and takes (1 + a) / 2 of their mean plus (1 - a) / 2 as the mean of both."""

    a: float | None = None
    """Slope in [0, 1] that approximates p IN from p OUT offline (default: chosen with references as targets)."""

    gamma: float | None = None
    """Factor, at least 1, by which a record must exceed another to dominate it (default: chosen with references as
    targets)."""

    def __post_init__(self) -> None:
        if self.a is not None and not 0 <= self.a <= 1:
            raise ValueError(f"a must lie in [0, 1], got {self.a}")
        if self.gamma is not None and self.gamma < 1:
            raise ValueError(f"gamma must be at least 1, got {self.gamma}")

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return log R, its standard error from the number of references, and the share of the population dominated.

        Raises:
            MIAError: a record without references on a side that is compared, or a to be chosen from one reference.
        """
        require_references(reference_outputs, need_in=self.mode == "online")
        slopes = (None,) if self.mode == "online" else GRID if self.a is None else (self.a,)
        a, gamma = choose(reference_outputs, slopes, self.gamma)
        score = log_ratio(reference_outputs, a=a)
        columns = {"": score, "dominance_share": dominance_share(np.exp(np.clip(score, -700, 700)), gamma=gamma)}
        half = np.full(len(score), 0.5)
        weights = (half, half) if a is None else (0 * half, (1 + a) * half)
        return columns | _error(reference_outputs, weights=weights, constant=0.0 if a is None else (1 - a) / 2)

    def of_targets(self, pool: TargetPool) -> NDArray[np.float64]:
        """Return the score of every model as target, (K, N); with a to be chosen, one by one."""
        slope = self.a
        if pool.outputs.drawn is not None or (self.mode == "offline" and slope is None):
            return super().of_targets(pool)
        if self.mode == "online" or slope is None:
            return pool.by_probability(lambda in_, out_, n: np.log((in_ / n[0] + out_ / n[1]) / 2))
        return pool.by_probability(lambda _, out_, n: np.log(out_ / n[1] * ((1 + slope) / 2) + (1 - slope) / 2))


@dataclass
class BASE(ReferenceScore):
    """Bayes-optimal membership inference (Lassila et al. 2025): log p(y | x) - scale * log mean_k p_k(y | x).

    online takes all references at scale 1, which is log R of RMIA up to the weight of the sides; offline takes those
    OUT at `scale`.
    """

    mode: Literal["online", "offline"] = "offline"
    """References that are compared: IN and OUT (online) or OUT alone (offline)."""

    scale: float = 0.33
    """offline: weight of the references' side."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the score and its standard error from the number of references.

        Raises:
            MIAError: offline with a record without references OUT.
        """
        reference_outputs.require_covered()
        if self.mode == "offline":
            require_references(reference_outputs, need_in=False)
        masks = reference_outputs.in_out_masks(slice(None))
        online = self.mode == "online"
        scale, shown = (1.0, masks[0] | masks[1]) if online else (self.scale, masks[1])
        score, relative = np.empty(len(reference_outputs)), np.empty(shown.shape)
        for rows in blocks(reference_outputs):
            p = Probabilities(reference_outputs.references[:, rows])
            log_mean = p.log_mean(shown[:, rows])
            relative[:, rows] = p.relative(log_mean)
            score[rows] = (log_probability(reference_outputs.target[rows]) - scale * log_mean).mean(axis=-1)
        counts = [mask.sum(axis=0) for mask in masks] if online else [np.zeros(len(score)), np.ones(len(score))]
        weights = [count / np.maximum(counts[0] + counts[1], 1) for count in counts]
        return {"": score} | _delta_method(relative, masks, weights, scale)

    def of_targets(self, pool: TargetPool) -> NDArray[np.float64]:
        """Return the score of every model as target, (K, N)."""
        if pool.outputs.drawn is not None:
            return super().of_targets(pool)
        if self.mode == "offline":
            return pool.by_probability(lambda _, out_, n: self.scale * np.log(out_ / n[1]))
        return pool.by_probability(lambda in_, out_, n: np.log((in_ + out_) / (n[0] + n[1])))


def require_references(reference_outputs: ReferenceOutputs, *, need_in: bool) -> None:
    """Raise MIAError where a record has no reference on a side that is compared."""
    in_, out_ = (mask.any(axis=0) for mask in reference_outputs.in_out_masks(slice(None)))
    for name, present in (("OUT", out_), ("IN", in_)):
        if (name == "OUT" or need_in) and not present.all():
            raise MIAError(
                f"{int((~present).sum())} of {len(reference_outputs)} records have no reference {name}; "
                "train an even number of references with --references.scheme balanced, or more of them"
            )


def log_ratio(reference_outputs: ReferenceOutputs, *, a: float | None) -> Array:
    """Return log R(x), mean over queries, (N,); online where a is None, each side weighing one half."""
    (score,) = log_ratios(reference_outputs, (a,))
    return np.asarray(score)


def log_ratios(reference_outputs: ReferenceOutputs, slopes: Sequence[float | None]) -> Array:
    """Return `log_ratio` (S, N) for several a in one pass over the references."""
    scores = np.empty((len(slopes), len(reference_outputs)))
    for rows in blocks(reference_outputs):
        target_log_p = log_probability(reference_outputs.target[rows])
        p = Probabilities(reference_outputs.references[:, rows])
        in_, out_ = reference_outputs.in_out_masks(rows)
        log_mean_out = p.log_mean(out_)
        for score, a in zip(scores, slopes, strict=True):
            if a is None:
                log_mean = np.logaddexp(log_mean_out, p.log_mean(in_)) + np.log(0.5)
            else:
                with np.errstate(divide="ignore"):
                    log_mean = np.logaddexp(log_mean_out + np.log((1 + a) / 2), np.log((1 - a) / 2))
            score[rows] = (target_log_p - log_mean).mean(axis=-1)
    return scores


def _error(reference_outputs: ReferenceOutputs, *, weights: tuple[Array, Array], constant: float = 0.0) -> Columns:
    """Return the standard error of log p(x) by the delta method; nothing where no record determines a variance.

    p(x) = weight IN * mean IN + weight OUT * mean OUT + constant, per query; errors of the queries are one model's.

    Args:
        reference_outputs: N records.
        weights: (N,) of the mean over references IN and OUT.
        constant: Added to p(x).
    """
    relative = np.empty(reference_outputs.keep.shape)
    for rows in blocks(reference_outputs):
        p = Probabilities(reference_outputs.references[:, rows])
        terms = [p.log_mean(mask) for mask in reference_outputs.in_out_masks(rows)]
        with np.errstate(divide="ignore"):
            terms = [term + np.log(weight[rows, None]) for term, weight in zip(terms, weights, strict=True)]
            total = np.logaddexp(np.logaddexp(*terms), np.log(constant))
        relative[:, rows] = p.relative(total)
    return _delta_method(relative, reference_outputs.in_out_masks(slice(None)), weights, 1.0)


def _delta_method(relative: Array, masks: Sequence[Mask], weights: Sequence[Array], scale: float) -> Columns:
    """Return the standard error of scale * log of a weighted mean, from each reference's part of it, (K, N)."""
    square = np.zeros(relative.shape[1])
    for weight, mask in zip(weights, masks, strict=True):
        if weight.any():
            error = standard_error_of_mean(group_moments(relative, mask))
            if error is None:
                return {}
            square += (weight * error) ** 2
    return {"standard_error": scale * np.sqrt(square)}


PSEUDO_TARGETS = 4
"""References that stand in for the target, in turn, where an option is chosen."""


def choose(
    reference_outputs: ReferenceOutputs, slopes: Sequence[float | None], gamma: float | None = None
) -> tuple[float | None, float]:
    """Return the a and the gamma with the highest AUC of IN against OUT, averaged over several pseudo-targets.

    Args:
        reference_outputs: N records.
        slopes: Values of a to choose from; None is the online score.
        gamma: None chooses among `GAMMAS`, or takes 2, the authors' default, where references are too few.

    Raises:
        MIAError: several slopes, and too few references for one to stand in for the target.
    """
    from mia_lightning.metrics.roc import auc  # here, so that --help does not import scipy

    if len(slopes) == 1 and gamma is not None:
        return slopes[0], gamma
    try:
        pairs = pseudo_targets(reference_outputs, need_in=slopes[0] is None)
    except MIAError:
        if len(slopes) > 1:
            raise
        return slopes[0], 2.0
    members = [member for _, member in pairs]
    ratios = [log_ratios(pseudo, slopes) for pseudo, _ in pairs]
    best = 0
    if len(slopes) > 1:
        areas = [[auc(ratio, member) for ratio in each] for each, member in zip(ratios, members, strict=True)]
        best = int(np.argmax(np.mean(areas, axis=0)))
    if gamma is None:
        shares = [np.exp(np.clip(each[best], -700, 700)) for each in ratios]
        dominated = [[dominance_share(share, gamma=value) for value in GAMMAS] for share in shares]
        areas = [[auc(values, member) for values in each] for each, member in zip(dominated, members, strict=True)]
        gamma = GAMMAS[int(np.argmax(np.mean(areas, axis=0)))]
    return slopes[best], gamma


def pseudo_targets(
    reference_outputs: ReferenceOutputs, *, need_in: bool = False
) -> list[tuple[ReferenceOutputs, NDArray[np.int8]]]:
    """Return the first references as targets of the others, each with its membership, on the records that allow it.

    A reference trained on exactly the records that the pseudo-target left out (its mate in a complementary pair) is
    left out: its IN is the membership sought, which no reference of a real target reveals.

    Raises:
        MIAError: for none of them a record keeps a reference OUT (and IN, if needed) once it is taken away.
    """
    pairs = []
    for number in range(min(PSEUDO_TARGETS, len(reference_outputs.references))):
        if (pair := _pseudo_target(reference_outputs, number, need_in=need_in)) is not None:
            pairs.append(pair)
    if not pairs:
        raise MIAError(
            "one reference must stand in for the target to choose this option, and there are too few others; give the "
            "option yourself (a: 0.3, gamma: 2), or train at least 3 references (--references.count)"
        )
    return pairs


def _pseudo_target(
    reference_outputs: ReferenceOutputs, number: int, *, need_in: bool
) -> tuple[ReferenceOutputs, NDArray[np.int8]] | None:
    in_, out_ = reference_outputs.in_out_masks(slice(None))
    both = (in_ | out_) & (in_[number] | out_[number])
    complementary = ~((in_ == in_[number]) & both).any(axis=1)
    complementary[number] = True
    rest = np.flatnonzero(~complementary)
    usable = (in_[number] | out_[number]) & out_[rest].any(axis=0)
    usable &= in_[rest].any(axis=0) if need_in else True
    member = in_[number][usable]
    if len(member) == 0 or member.all() or not member.any():
        return None
    records = np.flatnonzero(usable)
    pseudo = ReferenceOutputs(
        target=np.asarray(reference_outputs.references[number][records]),
        references=reference_outputs.references[np.ix_(rest, records)],
        keep=reference_outputs.keep[rest][:, records],
        labels=reference_outputs.labels[records],
        num_classes=reference_outputs.num_classes,
        drawn=None if reference_outputs.drawn is None else reference_outputs.drawn[rest][:, records],
    )
    return pseudo, member.astype(np.int8)


def dominance_share(ratio: Array, population: Array | None = None, *, gamma: float) -> Array:
    """Return the share of the population z with ratio(x) / ratio(z) > gamma, by one sort and a search.

    Bit-equal to comparing every pair: correctly rounded division is monotone, so those z form a prefix of the sorted
    population, and the search's result is moved by the same comparison until it is exact.

    Args:
        ratio: (N,) positive.
        population: (Z,) positive; None = the records themselves, each left out of its own population.
        gamma: At least 1.
    """
    ordered = np.sort(ratio if population is None else population)
    count = np.searchsorted(ordered, ratio / gamma, side="left")
    while True:
        ahead = (count < len(ordered)) & (ratio / ordered[np.minimum(count, len(ordered) - 1)] > gamma)
        behind = (count > 0) & ~(ratio / ordered[np.maximum(count - 1, 0)] > gamma)
        if not (ahead.any() or behind.any()):
            break
        count = count + ahead - (behind & ~ahead)
    population_size = len(ordered) - (population is None)  # a record never dominates itself, as gamma is at least 1
    return count / max(population_size, 1)
