"""Trials of recipes: references are trained and compared with what the target shows of itself."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from mia_lightning.config.schema import RunConfig
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.pipeline.results import LoadedInputs
from mia_lightning.records.records import UNKNOWN
from mia_lightning.references.phi import target_phi
from mia_lightning.references.prepare import ReferenceInputs, material_of, network_of
from mia_lightning.references.splits import assign
from mia_lightning.references.training import train_reference
from mia_lightning.references.training_data import Normalize, TrainingData, on_device
from mia_lightning.references.workers import Network, device_of
from mia_lightning.search.space import Params, Space
from mia_lightning.search.trial import EpochCallback, Judgment

ROOTS = ("references.training",)
"""The part of a run that a recipe is."""

METRIC = "mismatch"

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of phi, that are compared."""

SAMPLE = 2000
"""Most records of either side that a reference is looked at with."""


@dataclass(frozen=True)
class Behavior:
    """What one model does on records it was trained on (or one side of them) and on others."""

    accuracy: tuple[float, float]
    """IN and OUT, in [0, 1]."""

    quantiles: tuple[tuple[float, ...], tuple[float, ...]]
    """Of phi of the stored image, IN and OUT, at `QUANTILES`."""


@dataclass(frozen=True, eq=False)
class RecipeProblem:
    """All that a trial may see: images and labels of all records, and figures of the target. No membership."""

    space: Space
    material: TrainingData
    network: Network
    keep: NDArray[np.bool_]
    """(K, N) the records of each reference of a trial."""

    target: Behavior
    scale: float
    """Distance of the target's 5% and 95% quantile of phi over its known records: the unit of distances of phi."""

    seed: int
    device: str
    metric: str = METRIC
    higher_is_better: bool = False

    def judge(self, params: Params, report: EpochCallback | None = None) -> Judgment:
        """Train the references of one recipe and return how unlike the target they are, on average."""
        recipe = self.space.apply(params).references.training
        found = []
        with tempfile.TemporaryDirectory(prefix="mia-recipe-") as scratch:
            for number, keep in enumerate(self.keep):
                network = self.network(self.seed + number)

                def told(epoch: int, _: float, network: nn.Module = network, keep: NDArray[np.bool_] = keep) -> None:
                    if report is not None:
                        report(epoch, -mismatch(self.behavior(network, keep), self.target, self.scale)[METRIC])

                trained = train_reference(
                    network,
                    self.material,
                    keep,
                    recipe,
                    seed=self.seed + number,
                    checkpoint=Path(scratch) / "epoch",
                    device=self.device,
                    on_epoch=told if number == 0 else None,
                )
                found.append(mismatch(self.behavior(trained, keep), self.target, self.scale))
                (Path(scratch) / "epoch").unlink(missing_ok=True)
        return Judgment({name: float(np.mean([one[name] for one in found])) for name in found[0]})

    @torch.inference_mode()
    def behavior(self, network: nn.Module, keep: NDArray[np.bool_]) -> Behavior:
        """Return what a reference does on records of either side, as stored; it is left in the mode it was in."""
        training = network.training
        network.eval()
        device = next(network.parameters()).device
        images, labels = on_device(self.material, device)
        normalize = Normalize(self.material, images)
        draw = np.random.default_rng(self.seed)
        accuracy, quantiles = [], []
        for side in (keep, ~keep):
            chosen = draw.permutation(np.flatnonzero(side))[:SAMPLE]
            phi, correct = [], []
            for rows in torch.split(torch.from_numpy(chosen).to(device), 256):
                logits = network(normalize(images[rows])).float()
                own = F.one_hot(labels[rows], self.material.num_classes).bool()
                phi.append(logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(dim=1))
                correct.append(logits.argmax(dim=1) == labels[rows])
            accuracy.append(float(torch.cat(correct).float().mean()))
            quantiles.append(_quantiles(torch.cat(phi).cpu().numpy()))
        network.train(training)
        return Behavior((accuracy[0], accuracy[1]), (quantiles[0], quantiles[1]))

    def fresh(self) -> RecipeProblem:
        """Return the same problem on other halves and starting weights, which no trial saw."""
        return replace(self, keep=~self.keep, seed=self.seed + 7919)

    @property
    def width(self) -> int:
        """References of a trial."""
        return len(self.keep)

    def limited(self, threads: int) -> RecipeProblem:
        """Return itself; torch knows its threads."""
        return self

    def stack_key(self, params: Params) -> str | None:
        """Return None: networks on images are trained one by one."""
        return None

    def judge_together(self, params: Sequence[Params]) -> list[Judgment]:
        """Judge one by one."""
        return [self.judge(one) for one in params]


def mismatch(found: Behavior, target: Behavior, scale: float) -> dict[str, float]:
    """Return the mean of four distances, and what they are made of.

    The distances are those of accuracy IN from the target's on known members, of accuracy OUT from its on known
    non-members, and likewise of the quantiles of phi, on average and in units of `scale`. 0 = alike.
    """
    accuracy = [abs(own - other) for own, other in zip(found.accuracy, target.accuracy, strict=True)]
    phi = [
        float(np.mean(np.abs(np.subtract(own, other)))) / scale
        for own, other in zip(found.quantiles, target.quantiles, strict=True)
    ]
    return {
        METRIC: float(np.mean(accuracy + phi)),
        "accuracy_in": found.accuracy[0],
        "accuracy_out": found.accuracy[1],
        "phi_distance_in": phi[0],
        "phi_distance_out": phi[1],
    }


def recipe_problem(
    space: Space, config: RunConfig, prepared: LoadedInputs, answered: ModelOutputs, *, count: int
) -> RecipeProblem:
    """Collect what recipes are judged by.

    Args:
        space: Over `ROOTS`.
        config: The run.
        prepared: Its records and target.
        answered: What the target says of them.
        count: References per trial.
    """
    audited = ReferenceInputs(
        public=prepared.public,
        private=prepared.private,
        target=prepared.target,
        outputs=answered.outputs,
        private_outputs=answered.private_outputs,
        mean=config.data.mean,
        std=config.data.std,
        accuracy_on_members=0.0,  # only for notes on trained references
        accuracy_on_non_members=0.0,
    )
    halves = [half for half in (answered.outputs, answered.private_outputs) if half is not None]
    labels = np.concatenate([half.labels for half in halves])
    unknown = np.full(len(labels), UNKNOWN, np.int8)
    phi = target_phi(answered.outputs, 1)[:, 0]
    member = answered.public.membership
    low, high = np.quantile(phi[member != UNKNOWN], (QUANTILES[0], QUANTILES[-1]))
    accuracy = [float(str(answered.target[f"accuracy_on_{side}"])) for side in ("members", "non_members")]
    return RecipeProblem(
        space=space.bare(),
        material=material_of(audited, labels, 1),
        network=network_of(config.references, prepared.target),
        keep=assign("bernoulli", count, unknown, private=0, seed=config.seed).keep,
        target=Behavior((accuracy[0], accuracy[1]), (_quantiles(phi[member == 1]), _quantiles(phi[member == 0]))),
        scale=max(float(high - low), 1e-6),
        seed=config.seed,
        device=device_of(config.references),
    )


def _quantiles(phi: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(phi, QUANTILES))
