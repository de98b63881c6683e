"""Fidelity checks: references like the target, and reference memberships independent of the target's."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.references.independence import IndependentReferences
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.store import ReferenceRecord

CLEAR = 6.0
"""Standard errors beyond which one of the comparisons of up to 1,000 x 1,000 rows is no chance."""

Status = Literal["passed", "warned", "failed"]


@dataclass(frozen=True)
class FidelityCheck:
    """Result of one check of the references."""

    name: str
    """Short name, for a table."""

    status: Status
    """failed = figures from these references must not be relied on; warned = they are weaker than they could be."""

    detail: str
    """One sentence with the figures and, unless passed, the likely fix."""


def training_checks(
    records: tuple[ReferenceRecord, ...],
    *,
    accuracy_on_members: float,
    accuracy_on_non_members: float,
    tolerance: float,
) -> tuple[FidelityCheck, ...]:
    """Compare trained references with the target.

    Args:
        records: The references.
        accuracy_on_members: The target's in [0, 1]; compared with the references' on records IN their training.
        accuracy_on_non_members: The target's on known non-members; compared with the references' on records OUT.
        tolerance: Differences up to this pass.
    """
    checks = [
        FidelityCheck("reference training", "warned", f"reference {record.number} is left out: {record.reason}")
        for record in records
        if record.status != "trained"
    ]
    trained = [record for record in records if record.status == "trained"]
    if not trained:
        return tuple(checks)
    gap_in = float(np.mean([record.accuracy_in for record in trained])) - accuracy_on_members
    gap_out = float(np.mean([record.accuracy_out for record in trained])) - accuracy_on_non_members
    epochs = "fewer" if gap_in > 0 else "more"
    for gap, group, fix in (
        (gap_in, "their training records", f"train them for {epochs} epochs (--references.training.epochs)"),
        (gap_out, "held-out records", "match --references.training to the target's weight decay and augmentation"),
    ):
        same = abs(gap) <= tolerance
        detail = (
            f"references are {abs(gap) * 100:.1f} points {'more' if gap > 0 else 'less'} accurate on {group} than the "
            f"target (tolerance {tolerance * 100:g})"
        )
        checks.append(
            FidelityCheck(
                f"accuracy on {group}", "passed" if same else "failed", detail if same else f"{detail}; {fix}"
            )
        )
    return tuple(checks)


def independence_check(result: IndependentReferences, total: int) -> FidelityCheck:
    """Describe what `make_independent` left out of an import of `total` references."""
    name = "independence of membership"
    details = []
    if result.dropped:
        numbers = ", ".join(str(number) for number in result.dropped[:5]) + (" ..." if len(result.dropped) > 5 else "")
        details.append(
            f"{len(result.dropped)} of {total} imported references are left out (number {numbers}), as the records "
            "they were trained on follow from known membership"
        )
    if result.equalized:
        n_in, n_out = result.equalized
        details.append(
            f"every record is cut at random to {n_in} references IN and {n_out} OUT, as the counts differed between "
            "known members and non-members (the target looks like one model of a balanced matrix)"
        )
    if details:
        return FidelityCheck(name, "warned", "; ".join(details))
    return FidelityCheck(name, "passed", "neither a reference nor their counts are associated with known membership")


OTHER_SCALE = 3.0
"""Ratio of standard deviations of phi from which the target's and the references' are taken for different units."""


def direction_check(reference_outputs: ReferenceOutputs) -> FidelityCheck:
    """Test whether phi is higher for records IN a reference's training than for records OUT of it."""
    name = "direction of phi"
    sums, squares, n = np.zeros(2), np.zeros(2), np.zeros(2)
    in_, out_ = reference_outputs.in_out_masks(slice(None))
    for number, phi in enumerate(reference_outputs.references):
        for group, mask in enumerate((in_[number], out_[number])):
            values = np.asarray(phi[mask, 0], np.float64)
            sums[group] += values.sum()
            squares[group] += (values**2).sum()
            n[group] += len(values)
    if (n < 2).any():
        return FidelityCheck(name, "passed", "too few references IN or OUT to compare phi")
    mean = sums / n
    gap, error = mean[0] - mean[1], float(np.sqrt(((squares / n - mean**2) / n).sum()))
    detail = f"mean phi is {mean[0]:.3g} for records IN and {mean[1]:.3g} for records OUT (standard error {error:.2g})"
    if gap > 0 or gap > -3 * error:
        return FidelityCheck(name, "passed", detail)
    return FidelityCheck(
        name, "failed", f"{detail}; phi must rise with confidence and keep be True for IN: was one of them inverted?"
    )


def rows_check(reference_outputs: ReferenceOutputs) -> FidelityCheck:
    """Compare each model's phi with its own row of keep and with those of the other models."""
    name, (in_, out_) = "rows of keep", reference_outputs.in_out_masks(slice(None))
    counts = np.stack([in_.sum(axis=1), out_.sum(axis=1)])
    if len(in_) < 2 or (counts < 2).any():
        return FidelityCheck(name, "passed", "too few references IN or OUT to compare their rows")
    phi = np.asarray(reference_outputs.references[:, :, 0], np.float32)
    phi = phi - phi.mean(axis=0)  # without the records' difficulty
    gaps = phi @ (in_ / counts[0][:, None] - out_ / counts[1][:, None]).astype(np.float32).T
    t = gaps / np.maximum(phi.std(axis=1)[:, None] * np.sqrt((1 / counts).sum(axis=0)), np.finfo(np.float32).tiny)
    by_own_row, best = t.diagonal(), t.argmax(axis=1)
    better = np.flatnonzero((t.max(axis=1) > CLEAR) & (t.max(axis=1) - by_own_row > CLEAR))
    turned = np.flatnonzero(by_own_row < -CLEAR)
    if len(better):
        k, count = int(better[0]), f"{len(better)} of {len(phi)} references"
        detail = f"phi of {count} is higher IN by another row of keep, that of reference {k} by row {best[k]}"
        return FidelityCheck(name, "failed", f"{detail}; put the rows of keep in the order of the models' phi")
    if len(turned):
        detail = f"phi of reference {turned[0]} is lower for records IN its training"
        return FidelityCheck(name, "failed", f"{detail}; keep must be True for IN in all {len(phi)} rows, or remove it")
    return FidelityCheck(name, "passed", "no model's phi fits the row of another model better")


def scale_check(reference_outputs: ReferenceOutputs) -> FidelityCheck:
    """Compare the spread of phi of the target with that of the references: phi of both must be in one unit."""
    name = "scale of the target's phi"
    target = float(np.std(reference_outputs.target[:, 0]))
    spreads = [float(np.std(np.asarray(phi[:, 0], np.float64))) for phi in reference_outputs.references]
    typical = float(np.median(spreads)) if spreads else target
    detail = (
        f"phi of the target has a standard deviation of {target:.2g}, that of the references {typical:.2g} (median)"
    )
    if typical / OTHER_SCALE <= target <= typical * OTHER_SCALE:
        return FidelityCheck(name, "passed", detail)
    return FidelityCheck(
        name, "warned", f"{detail}: are both the same function of the outputs, and were both models trained alike?"
    )


def agreement_check(imported: NDArray[np.floating], queried: NDArray[np.floating]) -> FidelityCheck:
    """Compare imported phi (N,) of the target with phi (N,) of the target just queried, both of the stored images."""
    name = "imported phi of the target"
    spread = max(float(np.std(queried)), 1e-12)
    difference = float(np.median(np.abs(imported.astype(np.float64) - queried)))
    varies = np.std(imported) > 0 and np.std(queried) > 0
    correlation = float(np.corrcoef(imported, queried)[0, 1]) if varies else 0.0
    detail = (
        f"imported phi of the target differs from phi of the target just queried by {difference:.2g} (median; their "
        f"standard deviation is {spread:.2g}), correlation {correlation:.3f}"
    )
    if difference <= 0.05 * spread and correlation >= 0.98:
        return FidelityCheck(name, "passed", detail)
    return FidelityCheck(
        name,
        "failed",
        f"{detail}; check that target in the file is phi = log(p / (1 - p)) of this target's stored images in the "
        "order of this run's records, public first",
    )


def order_check(imported: ReferenceOutputs, queried: NDArray[np.floating]) -> FidelityCheck:
    """Compare mean phi of imported references with phi (N,) of the target, where the import has none of the target."""
    name = "order of imported records"
    mean = np.mean([np.asarray(phi[:, 0], np.float64) for phi in imported.references], axis=0)
    varies = np.std(mean) > 0 and np.std(queried) > 0
    correlation = float(np.corrcoef(mean, queried)[0, 1]) if varies else 0.0
    detail = f"mean phi of the imported references correlates with phi of the target just queried by {correlation:.3f}"
    if correlation >= 0.1 or len(queried) < 100:
        return FidelityCheck(name, "passed", f"{detail}; the import has no phi of the target to compare")
    return FidelityCheck(
        name, "failed", f"{detail}; check that the imported records are in the order of this run's, public first"
    )


def coverage_check(reference_outputs: ReferenceOutputs) -> FidelityCheck:
    """Count the records that no reference carries information about."""
    name, covered = "coverage of records", reference_outputs.covered
    missing = int((~covered).sum())
    if missing == 0:
        return FidelityCheck(name, "passed", "every record has references drawn IN or OUT")
    return FidelityCheck(
        name,
        "warned",
        f"{missing:,} of {len(covered):,} records have no reference drawn IN or OUT; their reference scores are set to "
        "the median, which ranks them neither up nor down; more references (--references.count) cover them",
    )
