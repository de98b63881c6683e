"""Column audit: associations of columns that do not come from the target with membership.

Memberships that were drawn without regard to the records are independent of everything that is not made by the target.
A reference flag, a count, a standard error, an id or a covariate that separates members from non-members therefore
carries the membership through a side door, or shows that the two were drawn from different populations.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mia_lightning.evaluation.assessment import SanityCheck
from mia_lightning.evaluation.comparison import holm
from mia_lightning.evaluation.sanity_checks import skipped
from mia_lightning.metrics.ranks import Array

AUDIT = "column audit"

LEVEL = 0.001
"""Probability of a warning, over all columns, where none carries the membership."""

MOST_NAMED = 3


CARRIERS = "columns that carry membership"
"""Detail with the number of columns, covariates not counted, that are associated with membership."""


def column_audit(
    columns: Mapping[str, Array],
    member: NDArray[np.int8],
    *,
    rows: NDArray[np.integer] | None = None,
    covariates: Mapping[str, Array] | None = None,
    scores: Mapping[str, Array] | None = None,
) -> SanityCheck:
    """Test each column that does not come from the target for association with membership.

    Columns with at most ten values have a chi-squared test, others a Kolmogorov-Smirnov test, which sees a change of
    location as well as of spread; p-values are adjusted by Holm's method. The tests are of the columns themselves and
    not of what remains given the target's phi: among records of equal phi the hard ones are members more often, so that
    an honest difficulty column would fail a conditional test. Columns made from references *and* the target are to be
    given with the target's phi exchanged between records: what is left of their
    association is not explained by phi.

    Args:
        columns: Name to (N,) values: reference flags, counts, standard errors and the like.
        member: (N,) 1 or 0, both present.
        rows: (M,) rows that `columns` are about, (M,) each; None = all.
        covariates: Name to (N,) values; their association is a difference of populations rather than a leak.
        scores: Attack to (N,) scores, which are checked for being the membership itself.
    """
    copies = [name for name, values in (scores or {}).items() if _is_membership(values, member)]
    if copies:
        sentence = (
            f"The scores of {', '.join(copies)} have two values, one for all members and one for all non-members: they "
            "are the membership itself, not an attack."
        )
        return SanityCheck(AUDIT, "warn", sentence, {CARRIERS: len(copies)})
    tested = {**columns, **(covariates or {})}
    if not tested:
        return skipped(AUDIT, "No column is known that does not come from the target.")
    raw = np.array([_p_value(values, member, rows) for values in tested.values()])
    p_values = dict(zip(tested, holm(raw).tolist(), strict=True))
    details: dict[str, float | int | str] = {f"{name}, p": value for name, value in p_values.items()}
    details["p"] = min(p_values.values())
    failed = sorted((name for name, p in p_values.items() if p < LEVEL), key=lambda name: p_values[name])
    details[CARRIERS] = sum(name in columns for name in failed)
    counts = f"{len(p_values)} column{'s' * (len(p_values) > 1)}, n = {len(member):,}"
    if not failed:
        sentence = (
            "No column that does not come from the target is associated with membership "
            f"({counts}; smallest p = {details['p']:.2g} after Holm)."
        )
        return SanityCheck(AUDIT, "pass", sentence, details)
    more = f" and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
    sentence = (
        f"Columns that do not come from the target are associated with membership: {', '.join(failed[:MOST_NAMED])}"
        f"{more} (p = {p_values[failed[0]]:.1g} after Holm over {counts}). An attack that reads them finds membership "
        "without the model."
    )
    return SanityCheck(AUDIT, "warn", sentence, details)


def association_p_value(values: Array, member: NDArray[np.int8]) -> float:
    """Return the p-value of independence of one column and membership.

    Args:
        values: (N,); records with NaN are left out.
        member: (N,) 1 or 0.
    """
    from scipy.stats import chi2_contingency, ks_2samp

    present = ~np.isnan(values)
    values, member = values[present], member[present]
    if len(np.unique(member)) < 2:
        return 1.0
    levels, index = np.unique(values, return_inverse=True)
    if len(levels) < 2:
        return 1.0
    if len(levels) > 10:
        return float(ks_2samp(values[member == 1], values[member == 0], method="asymp").pvalue)
    table = np.stack([np.bincount(index[member == side], minlength=len(levels)) for side in (1, 0)])
    table = table[:, table.sum(axis=0) >= 10]
    return float(chi2_contingency(table).pvalue) if table.shape[1] > 1 and table.sum(axis=1).min() else 1.0


def _p_value(values: Array, member: NDArray[np.int8], rows: NDArray[np.integer] | None) -> float:
    values = np.asarray(values, dtype=np.float64)
    sampled = member if rows is None or len(values) == len(member) else member[rows]
    return association_p_value(values, sampled)


def _is_membership(values: Array, member: NDArray[np.int8]) -> bool:
    members, non_members = np.unique(values[member == 1]), np.unique(values[member == 0])
    return len(member) >= 10 and len(members) == len(non_members) == 1 and members[0] != non_members[0]
