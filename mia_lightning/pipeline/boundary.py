"""Label-only attack by boundary distance on a sample of records, as a rung of the access ladder."""

from __future__ import annotations

import logging
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from mia_lightning.evaluation.access_ladder import FPRS, RESAMPLES, AccessLadder, Rung
from mia_lightning.evaluation.assessment import Difference
from mia_lightning.evaluation.comparison import comparable_rates, differences, paired_bootstrap
from mia_lightning.metrics.roc import evaluate
from mia_lightning.outputs.boundary import boundary_distances
from mia_lightning.outputs.datamodule import MembershipDataModule
from mia_lightning.pipeline.results import AuditResult, LoadedInputs
from mia_lightning.records.splits import Splits
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD

log = logging.getLogger(__name__)

ATTACK = "boundary distance"

BATCH = 1024
"""Inputs of a query."""


def with_boundary(ladder: AccessLadder, result: AuditResult, prepared: LoadedInputs) -> AccessLadder:
    """Return the ladder with a rung of boundary distances above those of labels, where `--boundary.queries` is set.

    The sample is drawn with the run's seed, half of it members; on it the distances are compared with the labels by a
    paired bootstrap. A note takes the rung's place where inputs are whole numbers, which have no points in between.
    """
    options, target = result.config.boundary, prepared.target
    public, rng = prepared.public, np.random.default_rng(result.config.seed)
    if options.queries == 0 or target is None:
        return ladder
    if public.multi_hot is not None:
        return _without(ladder, "needs one class per record, not several labels")
    if public.images.dtype.kind not in "fu":
        return _without(ladder, f"needs inputs of floating-point numbers or uint8 images, not {public.images.dtype}")
    started = perf_counter()
    in_folds = result.public.fold != NOT_IN_ANY_FOLD
    sides = [np.flatnonzero(in_folds & (public.membership == side) & (public.labels >= 0)) for side in (1, 0)]
    each = min(options.records // 2, *map(len, sides))
    if each == 0:
        return _without(ladder, "needs members and non-members with a known label")
    rows = np.concatenate([np.sort(rng.choice(side, each, replace=False)) for side in sides])
    config = result.config
    data = MembershipDataModule(Splits(public), mean=config.data.mean, std=config.data.std)
    inputs = data.normalize(torch.from_numpy(np.ascontiguousarray(public.images[rows]))).float()
    network = target.network.cpu()

    def predict(batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([network(part).argmax(dim=1) for part in torch.split(batch, BATCH)])

    labels = torch.from_numpy(public.labels[rows])
    measured = boundary_distances(predict, inputs, labels, inputs, budget=options.queries, seed=config.seed)
    distances = measured.distances.double().numpy()
    finite = distances[np.isfinite(distances)]
    distances = np.where(np.isfinite(distances), distances, 2 * finite.max(initial=1.0))
    evaluation = evaluate(distances, public.membership[rows], FPRS)
    below = sum(rung.access == "label" for rung in ladder.rungs)
    gain: tuple[Difference, ...] = ()
    if below:
        labels_alone = ladder.rungs[below - 1]
        sampled = labels_alone.scores[np.searchsorted(np.flatnonzero(in_folds), rows)]
        bootstrap = paired_bootstrap(
            {ATTACK: distances, labels_alone.name: sampled},
            public.membership[rows],
            comparable_rates(FPRS, each),
            resamples=RESAMPLES,
            seed=config.seed,
        )
        gain = differences(bootstrap, pairs=[(ATTACK, labels_alone.name)])
    rung = Rung("label", measured.queries, evaluation, gain, len(rows), 0, perf_counter() - started, ATTACK)
    return replace(ladder, rungs=(*ladder.rungs[:below], rung, *ladder.rungs[below:]))


def _without(ladder: AccessLadder, reason: str) -> AccessLadder:
    note = f"the boundary distance (--boundary.queries) was not measured: it {reason}"
    log.warning("%s", note)
    return replace(ladder, notes=(*ladder.notes, note))
