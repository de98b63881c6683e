"""Reference-training objective: mismatch between trained reference models and the target."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mia_lightning.config.schema import RunConfig
from mia_lightning.outputs.phi import is_correct, phi
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.pipeline.results import LoadedInputs, accuracies
from mia_lightning.records.records import UNKNOWN
from mia_lightning.references.fitting import fit_reference
from mia_lightning.references.networks import network_of
from mia_lightning.references.phi import target_phi
from mia_lightning.references.prepare import ReferenceInputs, material_of
from mia_lightning.references.splits import assign
from mia_lightning.references.training_data import Normalize, TrainingData, on_device
from mia_lightning.references.user_training import resolved_training
from mia_lightning.references.workers import device_of
from mia_lightning.search.space import Space
from mia_lightning.search.trial import EpochCallback, Objective, Params, TrialResult
from mia_lightning.targets.base import Target

ROOTS = ("references.training", "references.trainer")
"""Part of a run that a trial can change."""

METRIC = "mismatch"

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of phi that are compared."""

SAMPLE = 2000
"""Records, IN and OUT each, on which a reference is evaluated."""


@dataclass(frozen=True)
class Behavior:
    """Accuracy and quantiles of phi of one model, on records in its training set and on others."""

    accuracy: tuple[float, float]
    """IN and OUT, in [0, 1]."""

    quantiles: tuple[tuple[float, ...], tuple[float, ...]]
    """Of phi of the stored image, IN and OUT, at `QUANTILES`."""


@dataclass(frozen=True, eq=False)
class ReferenceObjective(Objective):
    """All that a trial may see: images and labels of all records, and figures of the target. No membership."""

    space: Space
    material: TrainingData
    form: Target
    """The target's architecture and preprocessing."""

    keep: NDArray[np.bool_]
    """(K, N) training set of each reference of a trial."""

    target: Behavior
    scale: float
    """Distance between the target's 5% and 95% quantile of phi on the records of known membership: unit of distances
    of phi."""

    seed: int
    device: str
    metric: str = METRIC
    higher_is_better: bool = False

    def evaluate(self, params: Params, report: EpochCallback | None = None) -> TrialResult:
        """Train the references of one configuration and return their mean mismatch with the target."""
        references = self.space.apply(params).references
        training, networks = resolved_training(references, self.form), network_of(references, self.form)
        mismatches = []
        with tempfile.TemporaryDirectory(prefix="mia-references-") as scratch:
            checkpoint = Path(scratch) / "epoch"
            for number, keep in enumerate(self.keep):
                network = networks(self.seed + number)

                def on_epoch(
                    epoch: int, _: float, network: nn.Module = network, keep: NDArray[np.bool_] = keep
                ) -> None:
                    if report is not None:
                        report(epoch, -mismatch(self.behavior(network, keep), self.target, self.scale)[METRIC])

                trained = fit_reference(
                    network,
                    self.material,
                    keep,
                    training,
                    references.trainer,
                    seed=self.seed + number,
                    checkpoint=checkpoint,
                    device=self.device,
                    on_epoch=on_epoch if number == 0 else None,
                )
                mismatches.append(mismatch(self.behavior(trained, keep), self.target, self.scale))
                checkpoint.unlink(missing_ok=True)
        return TrialResult({name: float(np.mean([row[name] for row in mismatches])) for name in mismatches[0]})

    @torch.inference_mode()
    def behavior(self, network: nn.Module, keep: NDArray[np.bool_]) -> Behavior:
        """Evaluate a reference on stored images IN and OUT; its mode is restored."""
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        device = next(network.parameters()).device
        images, labels = on_device(self.material, device)
        normalize = Normalize(self.material, images)
        rng = np.random.default_rng(self.seed)
        accuracy, quantiles = [], []
        for side in (keep, ~keep):
            sample = rng.permutation(np.flatnonzero(side))[:SAMPLE]
            values, correct = [], []
            for rows in torch.split(torch.from_numpy(sample).to(device), 256):
                logits = network(normalize(images[rows])).float()
                values.append(phi(logits, labels[rows]))
                correct.append(is_correct(logits, labels[rows]))
            accuracy.append(float(torch.cat(correct).float().mean()))
            quantiles.append(_quantiles(torch.cat(values).cpu().numpy()))
        for module, mode in modes:
            module.training = mode
        return Behavior((accuracy[0], accuracy[1]), (quantiles[0], quantiles[1]))

    def fresh(self) -> Self:
        """Return the same objective on other training sets and starting weights, which no trial saw."""
        return replace(self, keep=~self.keep, seed=self.seed + 7919)

    @property
    def networks(self) -> int:
        """References of a trial."""
        return len(self.keep)


def mismatch(reference: Behavior, target: Behavior, scale: float) -> dict[str, float]:
    """Return the mean of four distances (0: alike), and the distances.

    They are the differences of accuracy IN from the target's on known members and of accuracy OUT from its on known
    non-members, and the mean differences of the quantiles of phi, IN and OUT, in units of `scale`.
    """
    accuracy = [abs(value - of_target) for value, of_target in zip(reference.accuracy, target.accuracy, strict=True)]
    phi = [
        float(np.mean(np.abs(np.subtract(values, of_target)))) / scale
        for values, of_target in zip(reference.quantiles, target.quantiles, strict=True)
    ]
    return {
        METRIC: float(np.mean(accuracy + phi)),
        "accuracy_in": reference.accuracy[0],
        "accuracy_out": reference.accuracy[1],
        "phi_distance_in": phi[0],
        "phi_distance_out": phi[1],
    }


def build_reference_objective(
    space: Space, config: RunConfig, prepared: LoadedInputs, outputs: ModelOutputs, *, count: int
) -> ReferenceObjective:
    """Collect training data and the target's behavior.

    Args:
        space: Over `ROOTS`.
        config: The run.
        prepared: Its records and target.
        outputs: From `query_models`.
        count: References per trial.
    """
    assert prepared.target is not None  # a search trains references of the target's architecture
    audited = ReferenceInputs(
        public=prepared.public,
        private=prepared.private,
        target=prepared.target,
        outputs=outputs.outputs,
        private_outputs=outputs.private_outputs,
        mean=config.data.mean,
        std=config.data.std,
        accuracy_on_members=0.0,  # only for notes on trained references
        accuracy_on_non_members=0.0,
    )
    material = material_of(audited, 1)
    unknown = np.full(len(material.labels), UNKNOWN, np.int8)
    phi = target_phi(outputs.outputs, 1)[:, 0]
    member = outputs.public.membership
    low, high = np.quantile(phi[member != UNKNOWN], (QUANTILES[0], QUANTILES[-1]))
    return ReferenceObjective(
        space=space.without_paths(),
        material=material,
        form=prepared.target,
        keep=assign("bernoulli", count, unknown, private=0, seed=config.seed).keep,
        target=Behavior(accuracies(outputs.target), (_quantiles(phi[member == 1]), _quantiles(phi[member == 0]))),
        scale=max(float(high - low), 1e-6),
        seed=config.seed,
        device=device_of(config.references),
    )


def _quantiles(phi: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(phi, QUANTILES))
