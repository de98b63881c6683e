"""From the target's outputs and the store of references to evidence, columns and a check of fidelity."""

from __future__ import annotations

import numpy as np

from mia_lightning.references.store import ReferenceRecord


def fidelity_notes(
    rows: tuple[ReferenceRecord, ...], *, accuracy_on_members: float, accuracy_on_non_members: float, tolerance: float
) -> tuple[str, ...]:
    """Return one sentence per way in which the references are unlike the target, with the likely fix.

    Args:
        rows: The references.
        accuracy_on_members: The target's, on known members; to be compared with the references' on their own records.
        accuracy_on_non_members: The target's, on known non-members; compared with the references' on all others.
        tolerance: Differences up to this pass.
    """
    notes = [f"reference {row.number} is left out: {row.reason}" for row in rows if row.status != "trained"]
    trained = [row for row in rows if row.status == "trained"]
    if not trained:
        return tuple(notes)
    in_ = float(np.mean([row.accuracy_in for row in trained])) - accuracy_on_members
    out_ = float(np.mean([row.accuracy_out for row in trained])) - accuracy_on_non_members
    for gap, where, fix in (
        (in_, "their own records", "fewer" if in_ > 0 else "more"),
        (out_, "records they were not trained on", ""),
    ):
        if abs(gap) > tolerance:
            advice = (
                f"train them for {fix} epochs (--references.training.epochs)"
                if fix
                else "change weight decay, learning rate or augmentation of --references.training to the target's"
            )
            notes.append(
                f"the references are {abs(gap):.1%} {'more' if gap > 0 else 'less'} accurate on {where} than the "
                f"target on its, beyond the tolerance of {tolerance:.1%}; {advice}"
            )
    return tuple(notes)
