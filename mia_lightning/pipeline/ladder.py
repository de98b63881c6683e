"""Access ladder of a run, with a rung of boundary distances on a sample of the records."""

import logging
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mia_lightning.evaluation.access_ladder import FPRS, RESAMPLES, AccessLadder, Rung, access_ladder
from mia_lightning.evaluation.assessment import Difference
from mia_lightning.evaluation.comparison import comparable_rates, differences, paired_bootstrap
from mia_lightning.metrics.roc import evaluate
from mia_lightning.outputs.access import highest_access
from mia_lightning.outputs.boundary import BoundaryDistances, boundary_distances
from mia_lightning.outputs.datamodule import MembershipDataModule
from mia_lightning.pipeline.results import AuditResult, LoadedInputs
from mia_lightning.records.splits import Splits
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD
from mia_lightning.targets.base import Target

log = logging.getLogger(__name__)

ATTACK = "boundary distance"

BATCH = 1024
"""Inputs of a query."""


def ladder_of(result: AuditResult, prepared: LoadedInputs) -> AccessLadder | None:
    """Return what an attacker reaches at every level of access up to the run's, None for arrays alone.

    Args:
        result: From `attack_target`.
        prepared: The inputs of `result`.
    """
    if result.outputs is None or prepared.target is None:
        return None
    count, names = len(result.public.ids), result.config.references.all_scores
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
        models=sum(len(each.reference_outputs.references) for each in result.reference_sets.values()),
        seed=result.config.seed,
        groups=result.public.groups,
    )
    return ladder if result.config.boundary.queries == 0 else _with_boundary(ladder, result, prepared, prepared.target)


def _with_boundary(ladder: AccessLadder, result: AuditResult, prepared: LoadedInputs, target: Target) -> AccessLadder:
    """Return the ladder with a rung of boundary distances above those of labels, or a note why it has none.

    The sample is drawn with the run's seed, half of it members; on it the distances are compared with the labels by a
    paired bootstrap. Whole numbers have no points in between.
    """
    public = prepared.public
    if public.multi_hot is not None:
        return _without(ladder, "needs one class per record, not several labels")
    if public.images.dtype.kind not in "fu":
        return _without(ladder, f"needs inputs of floating-point numbers or uint8 images, not {public.images.dtype}")
    if public.categories or (public.feature_names is not None and bool(np.isnan(public.images).any())):
        return _without(ladder, "needs a number in every column, not text or missing values")
    started = perf_counter()
    rows = _sample(result, prepared)
    if len(rows) == 0:
        return _without(ladder, "needs members and non-members with a known label")
    measured = _measured(result, prepared, target, rows)
    distances = measured.distances.double().numpy()
    finite = distances[np.isfinite(distances)]
    distances = np.where(np.isfinite(distances), distances, 2 * finite.max(initial=1.0))
    evaluation = evaluate(distances, public.membership[rows], FPRS)
    below = sum(rung.access == "label" for rung in ladder.rungs)
    gain = _gain(ladder.rungs[below - 1], distances, result, rows) if below else ()
    rung = Rung("label", measured.queries, evaluation, gain, len(rows), 0, perf_counter() - started, ATTACK)
    return replace(ladder, rungs=(*ladder.rungs[:below], rung, *ladder.rungs[below:]))


def _without(ladder: AccessLadder, reason: str) -> AccessLadder:
    note = f"the boundary distance (--boundary.queries) was not measured: it {reason}"
    log.warning("%s", note)
    return replace(ladder, notes=(*ladder.notes, note))


def _sample(result: AuditResult, prepared: LoadedInputs) -> NDArray[np.intp]:
    """Return rows of as many members as non-members with a label; none where one side has none."""
    public, rng = prepared.public, np.random.default_rng(result.config.seed)
    usable = (result.public.fold != NOT_IN_ANY_FOLD) & (public.labels >= 0)
    sides = [np.flatnonzero(usable & (public.membership == side)) for side in (1, 0)]
    each = min(result.config.boundary.records // 2, *map(len, sides))
    return np.concatenate([np.sort(rng.choice(side, each, replace=False)) for side in sides])


def _measured(result: AuditResult, prepared: LoadedInputs, target: Target, rows: NDArray[np.intp]) -> BoundaryDistances:
    """Measure the distances of some records from the boundary of their class by labels alone."""
    public, config = prepared.public, result.config
    data = MembershipDataModule(Splits(public), mean=config.data.mean, std=config.data.std)
    inputs = data.normalize(torch.from_numpy(np.ascontiguousarray(public.images[rows]))).float()
    network = target.network.cpu()

    def predict(batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([network(part).argmax(dim=1) for part in torch.split(batch, BATCH)])

    labels = torch.from_numpy(public.labels[rows])
    return boundary_distances(predict, inputs, labels, inputs, budget=config.boundary.queries, seed=config.seed)


def _gain(
    labels_alone: Rung, distances: NDArray[np.float64], result: AuditResult, rows: NDArray[np.intp]
) -> tuple[Difference, ...]:
    """Return the differences of the distances' figures from those of labels on the sample."""
    in_folds = np.flatnonzero(result.public.fold != NOT_IN_ANY_FOLD)
    scores = {ATTACK: distances, labels_alone.name: labels_alone.scores[np.searchsorted(in_folds, rows)]}
    member, rates = result.public.membership[rows], comparable_rates(FPRS, len(rows) // 2)
    bootstrap = paired_bootstrap(scores, member, rates, resamples=RESAMPLES, seed=result.config.seed)
    return differences(bootstrap, pairs=[(ATTACK, labels_alone.name)])
