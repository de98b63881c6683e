"""Explanations of figures: inputs alone, their importance, calibration, and reference models by record."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks.base import Attack
from mia_lightning.metrics.evaluation import Evaluation
from mia_lightning.metrics.intervals import rate_interval
from mia_lightning.metrics.roc import auc, evaluate
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.signals.table import SignalTable

BINS = 10
"""Bins of a reliability diagram, of equal numbers of records."""

IMPORTANCE_ROWS = 4000
"""Most records that the importance is estimated on."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Records of similar calibrated probability."""

    predicted: float
    """Mean probability of membership, in [0, 1]."""

    observed: float
    """Share of members, in [0, 1]."""

    low: float
    """95% interval of the share."""

    high: float
    records: int


@dataclass(frozen=True, eq=False)
class RecordPhi:
    """phi (mean over the views) of one record under the target and the reference models."""

    id: str
    member: bool
    target: float
    in_: NDArray[np.float64]
    """(K_in,) of the reference models trained on the record."""

    out_: NDArray[np.float64]
    """(K_out,) of those that were not."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Data of a report's section on the reasons for the figures."""

    columns: Mapping[str, Evaluation] = field(default_factory=dict)
    """Column to the figures of a ranking by it alone, in the direction of members; best AUC first."""

    importance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Attack to column to the loss of AUC if the column is permuted over records; largest first."""

    reliability: Mapping[str, tuple[ReliabilityBin, ...]] = field(default_factory=dict)
    """Attack to the reliability diagram of its calibrated probabilities."""

    raw: tuple[str, NDArray[np.float64]] | None = None
    """Name and values (N,) of the best column alone, as computed."""

    phi: tuple[RecordPhi, ...] = ()
    """Some records under the reference models; empty without any."""


def columns_alone(
    columns: Mapping[str, NDArray[np.floating]],
    directions: Mapping[str, int],
    membership: NDArray[np.int8],
    fprs: Iterable[float],
    groups: NDArray[np.generic] | None = None,
) -> dict[str, Evaluation]:
    """Return the figures of each scalar column alone, best AUC first.

    Args:
        columns: Name to (N,) values; wider ones are left out.
        directions: Name to 1 or -1, where higher or lower values mean members; other names are left out.
        membership: (N,) 1 or 0.
        fprs: False-positive rates of the points.
        groups: (N,) group of each record, or None.
    """
    rates = tuple(fprs)
    evaluated = {
        name: evaluate(np.asarray(directions[name] * values, np.float64), membership, rates, groups=groups)
        for name, values in columns.items()
        if values.ndim == 1 and directions.get(name)
    }
    return dict(sorted(evaluated.items(), key=lambda item: -item[1].auc))


def permutation_importance(
    attack: Attack, table: SignalTable, membership: NDArray[np.int8], fold: NDArray[np.int8], *, seed: int
) -> dict[str, float]:
    """Return the loss of AUC on the first fold if one column is permuted over its records, largest first.

    The attack is fitted once, on the other folds (Breiman 2001, "Random Forests", section 10). Columns that carry the
    same information replace each other, so each of them has a small importance.

    Args:
        attack: Unfitted; reads columns of the table only.
        table: (N,) rows.
        membership: (N,) 1 or 0.
        fold: (N,) from 0 on.
        seed: Random seed.
    """
    fitted = deepcopy(attack).fit(table.rows(fold != 0), membership[fold != 0], seed=seed)
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(fold == 0)
    rows = np.sort(rng.permutation(rows)[:IMPORTANCE_ROWS])
    held_out, member = table.rows(rows), membership[rows]
    full = auc(fitted.score(held_out), member)
    order = rng.permutation(len(rows))
    losses = {
        name: full - auc(fitted.score(held_out.with_columns({name: held_out.columns[name][order]})), member)
        for name in table.match(attack.required_columns())
    }
    return dict(sorted(losses.items(), key=lambda item: -item[1]))


def reliability(probabilities: NDArray[np.float64], member: NDArray[np.int8]) -> tuple[ReliabilityBin, ...]:
    """Return the reliability diagram over bins of equal numbers of records.

    Args:
        probabilities: (N,) in [0, 1].
        member: (N,) 1 or 0.
    """
    parts = np.array_split(np.argsort(probabilities, kind="stable"), min(BINS, len(probabilities)))
    bins = []
    for rows in parts:
        members = int((member[rows] == 1).sum())
        low, high = rate_interval(members, len(rows))
        predicted = float(probabilities[rows].mean())
        bins.append(ReliabilityBin(predicted, members / len(rows), low, high, len(rows)))
    return tuple(bins)


def phi_of_records(
    outputs: ReferenceOutputs, rows: Iterable[int], ids: NDArray[np.generic], member: NDArray[np.int8]
) -> tuple[RecordPhi, ...]:
    """Return phi of some records under target and reference models, averaged over the views.

    Args:
        outputs: Of N records.
        rows: Indices of the records; those without any drawn reference model are left out.
        ids: (N,).
        member: (N,) 1 or 0.
    """
    selected = np.array([row for row in rows if outputs.covered[row]], np.int64)
    if not len(selected):
        return ()
    part = outputs.records(selected)
    in_, out_ = part.in_out_masks(slice(0, len(selected)))
    phi = part.references.mean(axis=2, dtype=np.float64)
    return tuple(
        RecordPhi(
            id=str(ids[row]),
            member=bool(member[row] == 1),
            target=float(part.target[number].mean(dtype=np.float64)),
            in_=phi[in_[:, number], number],
            out_=phi[out_[:, number], number],
        )
        for number, row in enumerate(selected.tolist())
    )
