"""Label-only attack by boundary distance on a sample of records, as a rung of the access ladder."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from mia_lightning.evaluation.access_ladder import FPRS, AccessLadder, Rung
from mia_lightning.metrics.roc import evaluate
from mia_lightning.outputs.boundary import boundary_distances
from mia_lightning.outputs.datamodule import MembershipDataModule
from mia_lightning.pipeline.results import AuditResult, LoadedInputs
from mia_lightning.records.splits import Splits
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD

BATCH = 1024
"""Inputs of a query."""


def with_boundary(ladder: AccessLadder, result: AuditResult, prepared: LoadedInputs) -> AccessLadder:
    """Return the ladder with a rung of boundary distances above those of labels, where `--boundary.queries` is set.

    The sample is drawn with the run's seed, half of it members. It needs inputs that are floating-point numbers.
    """
    options, target = result.config.boundary, prepared.target
    public, rng = prepared.public, np.random.default_rng(result.config.seed)
    if options.queries == 0 or target is None or public.images.dtype.kind not in "fu":
        return ladder
    started = perf_counter()
    in_folds = result.public.fold != NOT_IN_ANY_FOLD
    sides = [np.flatnonzero(in_folds & (public.membership == side) & (public.labels >= 0)) for side in (1, 0)]
    each = min(options.records // 2, *map(len, sides))
    if each == 0:
        return ladder
    rows = np.concatenate([np.sort(rng.choice(side, each, replace=False)) for side in sides])
    config = result.config
    data = MembershipDataModule(Splits(public), mean=config.data.mean, std=config.data.std)
    inputs = data.normalize(torch.from_numpy(np.ascontiguousarray(public.images[rows]))).float()
    network = target.network.cpu()

    def predict(batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([network(part).argmax(dim=1) for part in torch.split(batch, BATCH)])

    labels = torch.from_numpy(public.labels[rows])
    found = boundary_distances(predict, inputs, labels, inputs, budget=options.queries, seed=config.seed)
    distances = found.distances.double().numpy()
    finite = distances[np.isfinite(distances)]
    distances = np.where(np.isfinite(distances), distances, 2 * finite.max(initial=1.0))
    evaluation = evaluate(distances, public.membership[rows], FPRS)
    rung = Rung("label", found.queries, evaluation, (), len(rows), 0, perf_counter() - started, "boundary distance")
    below = sum(other.access == "label" for other in ladder.rungs)
    return replace(ladder, rungs=(*ladder.rungs[:below], rung, *ladder.rungs[below:]))
