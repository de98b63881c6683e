"""Independence of imported references from the target's known membership.

A matrix of shadow models usually has every record IN the same number of models. Where the target is one of these models
and the others are imported as its references, members have one reference IN fewer than non-members, so that the count
alone is the label. Here each reference and the counts are tested, and references are left out until neither is
associated with membership.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.references.outputs import ReferenceOutputs

LEVEL = 0.01
"""Probability of any action on references that were drawn independently: one half for counts, one for references."""

PERMUTATIONS = 4999
"""Contingency tables drawn for the permutation test of the counts."""

Bits = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Association:
    """Tests of references against membership."""

    references: NDArray[np.float64]
    """(K,) p-value of each reference's IN and OUT columns (hypergeometric, two-sided, doubled for the two columns)."""

    correlation: NDArray[np.float64]
    """(K,) correlation of the IN column with membership, over the records whose IN or OUT was drawn."""

    counts: float
    """p-value of the numbers of references IN and OUT (permutation test)."""

    @property
    def passed(self) -> bool:
        """Whether neither a reference nor the counts are associated with membership, at `LEVEL` in all."""
        return self.counts > LEVEL / 2 and bool((self.references > LEVEL / 2 / max(len(self.references), 1)).all())


@dataclass(frozen=True, eq=False)
class IndependentReferences:
    """References whose numbers and columns are not associated with known membership."""

    reference_outputs: ReferenceOutputs
    dropped: tuple[int, ...]
    """References left out of all records, by their number in the import."""

    equalized: tuple[int, int] | None
    """Numbers IN and OUT that every record was cut to; None = nothing was cut."""


def make_independent(
    reference_outputs: ReferenceOutputs,
    membership: NDArray[np.int8],
    *,
    seed: int,
    source: str,
    order: NDArray[np.intp] | None = None,
) -> IndependentReferences:
    """Leave references out, wholly or per record, until none of them is associated with known membership.

    Which reference a single record loses depends on the counts of IN and OUT and on chance, never on membership, so
    that private records are treated as public ones are.

    Args:
        reference_outputs: N records.
        membership: (N,) 1, 0 or -1 = unknown; only read for the tests.
        seed: Drives the permutations and the choice of the references a record loses.
        source: Name of the import, for the error.
        order: (N,) from `splits.content_order`; with it the choice does not depend on a record's position.

    Raises:
        MIAError: no reference is left.
    """
    labeled = np.flatnonzero(membership >= 0)
    member = membership[labeled] == 1
    in_, out_ = reference_outputs.in_out_masks(slice(None))
    kept = np.arange(len(in_))
    first: Association | None = None
    while len(kept):
        raw = association(in_[kept][:, labeled], out_[kept][:, labeled], member, seed=seed)
        first = first or raw
        if raw.passed:
            return _result(reference_outputs, kept, None, None)
        tested, cut = raw, equalize(in_[kept], out_[kept], seed=seed, order=order)
        if cut is not None:
            tested = association(cut[0][:, labeled], cut[1][:, labeled], member, seed=seed)
            if tested.passed:
                return _result(reference_outputs, kept, cut[0] | cut[1], _numbers(*cut))
        strength = np.abs(tested.correlation)
        worst = strength >= strength.max() / 2 if strength.any() else tested.references <= tested.references.min()
        kept = kept[~worst]
    assert first is not None
    strongest = int(np.argmax(np.abs(first.correlation)))
    rates = [float(in_[strongest, labeled][member == value].mean()) for value in (True, False)]
    raise MIAError(
        f"{source}: which references a record is IN follows from known membership (reference {strongest} has "
        f"{rates[0]:.0%} of the members and {rates[1]:.0%} of the non-members IN), so scores would repeat membership "
        "instead of measuring it; import references whose records were drawn independently of the target's, or add "
        "an array drawn (K, N) that is False where keep followed from membership"
    )


def association(in_: Bits, out_: Bits, member: Bits, *, seed: int) -> Association:
    """Test K references against membership.

    Args:
        in_: (K, M) reference IN the record, of records of known membership.
        out_: (K, M) reference OUT of the record.
        member: (M,).
        seed: Drives the permutations.
    """
    p_value = np.minimum(1.0, 2 * np.minimum(_hypergeometric(in_, member), _hypergeometric(out_, member)))
    drawn = in_ | out_
    n, n_member = drawn.sum(axis=1), (drawn & member).sum(axis=1)
    n_in, both = in_.sum(axis=1), (in_ & member).sum(axis=1)
    variance = n_in * (n - n_in) / np.maximum(n, 1) * n_member * (n - n_member) / np.maximum(n, 1)
    covariance = both - n_in * n_member / np.maximum(n, 1)
    correlation = np.where(variance > 0, covariance / np.sqrt(np.maximum(variance, 1e-12)), 0.0)
    return Association(p_value, correlation, _counts_p_value(in_.sum(axis=0), out_.sum(axis=0), member, seed=seed))


def _hypergeometric(columns: Bits, member: Bits) -> NDArray[np.float64]:
    """Return two-sided p-values of Fisher's exact test by doubling, (K,)."""
    from scipy.stats import hypergeom

    both, ones = (columns & member).sum(axis=1), columns.sum(axis=1)
    low = hypergeom.cdf(both, len(member), int(member.sum()), ones)
    high = hypergeom.sf(both - 1, len(member), int(member.sum()), ones)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(low, high)), np.float64)


def _counts_p_value(n_in: NDArray[np.int64], n_out: NDArray[np.int64], member: Bits, *, seed: int) -> float:
    """Return the p-value of three statistics of the table of counts by membership, corrected for their number.

    The statistics are chi-squared and the differences of the mean numbers IN and OUT; tables are drawn with both
    margins fixed, which is what permuted membership gives.
    """
    pairs, which = np.unique(np.stack([n_in, n_out]), axis=1, return_inverse=True)
    which = which.reshape(-1)
    if pairs.shape[1] < 2 or member.all() or not member.any():
        return 1.0
    sizes = np.bincount(which)
    observed = np.bincount(which, weights=member)
    rng = np.random.default_rng((seed, *b"permute"))
    drawn = rng.multivariate_hypergeometric(sizes, int(member.sum()), PERMUTATIONS, method="marginals")
    expected = sizes * member.mean()

    def statistics(tables: NDArray[np.float64]) -> NDArray[np.float64]:
        gap = tables - expected
        return np.stack([(gap**2 / expected).sum(axis=-1), np.abs(gap @ pairs[0]), np.abs(gap @ pairs[1])], axis=-1)

    exceeding = (
        statistics(drawn.astype(np.float64)) >= statistics(np.asarray(observed[None], np.float64)) * (1 - 1e-12)
    ).sum(axis=0)
    return float(min(1.0, 3 * ((1 + exceeding) / (1 + PERMUTATIONS)).min()))


def equalize(in_: Bits, out_: Bits, *, seed: int, order: NDArray[np.intp] | None = None) -> tuple[Bits, Bits] | None:
    """Cut every record, by chance, to the smallest numbers of references IN and OUT that any record has.

    Args:
        in_: (K, N).
        out_: (K, N).
        seed: Drives the choice.
        order: (N,) order in which the records are cut; None = as stored.

    Returns:
        The masks that remain, or None where some record has neither.
    """
    least = int(in_.sum(axis=0).min()), int(out_.sum(axis=0).min())
    if sum(least) == 0:
        return None
    rng = np.random.default_rng((seed, *b"equalize"))
    remaining = np.zeros_like(in_), np.zeros_like(out_)
    order = np.arange(in_.shape[1]) if order is None else order
    for start in range(0, in_.shape[1], 4096):
        rows = order[start : start + 4096]
        chance = rng.random((len(in_), len(rows)))
        for mask, cut, count in zip((in_, out_), remaining, least, strict=True):
            rank = np.where(mask[:, rows], chance, 2.0).argsort(axis=0).argsort(axis=0)
            cut[:, rows] = mask[:, rows] & (rank < count)
    return remaining


def _numbers(in_: Bits, out_: Bits) -> tuple[int, int]:
    return int(in_[:, 0].sum()), int(out_[:, 0].sum())


def _result(
    reference_outputs: ReferenceOutputs, kept: NDArray[np.int64], drawn: Bits | None, equalized: tuple[int, int] | None
) -> IndependentReferences:
    total = len(reference_outputs.references)
    dropped = tuple(int(number) for number in np.setdiff1d(np.arange(total), kept))
    if dropped:
        reference_outputs = reference_outputs.models(kept)
    if drawn is not None:
        reference_outputs = replace(reference_outputs, drawn=drawn)
    return IndependentReferences(reference_outputs, dropped, equalized)
