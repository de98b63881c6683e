"""Access ladder of a run."""

from __future__ import annotations

from mia_lightning.evaluation.access_ladder import AccessLadder, access_ladder
from mia_lightning.outputs.access import highest_access
from mia_lightning.pipeline.boundary import with_boundary
from mia_lightning.pipeline.results import AuditResult, LoadedInputs


def ladder_of(result: AuditResult, prepared: LoadedInputs) -> AccessLadder | None:
    """Return what an attacker reaches at every level of access up to the run's, None for arrays alone.

    Args:
        result: From `attack_target`.
        prepared: The inputs of `result`.
    """
    if result.outputs is None or prepared.target is None:
        return None
    count, names = len(result.public.ids), result.config.references.scores
    references = {
        column: values[:count]
        for column, values in result.table.columns.items()
        if any(column == name or column.startswith(f"{name}_") for name in names)
    }
    ladder = access_ladder(
        result.outputs,
        result.public.membership,
        result.public.fold,
        target_access=highest_access(prepared.target.form.output, result.outputs),
        highest=result.config.access,
        references=references,
        models=0 if result.reference_outputs is None else len(result.reference_outputs.references),
        seed=result.config.seed,
        groups=result.public.groups,
    )
    return with_boundary(ladder, result, prepared)
