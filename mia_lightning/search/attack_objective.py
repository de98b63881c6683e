"""Attack objective: cross-fitted figures of one attack on the development records, from columns computed once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks import Attack
from mia_lightning.config.files import to_mapping
from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError, suggest
from mia_lightning.metrics.roc import auc, partial_auc, tpr_at_fpr
from mia_lightning.pipeline.model_outputs import ModelOutputs, signal_table
from mia_lightning.references.config import column_of
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD, cross_fit
from mia_lightning.search.space import Space
from mia_lightning.search.stacked_mlp import cross_fit_batch, with_equal_rates
from mia_lightning.search.trial import EpochCallback, Objective, Params, TrialResult
from mia_lightning.signals import expand_names
from mia_lightning.signals.table import SignalTable

ROOTS = ("attacks", "signals", "references.scores")
"""Parts of a run that a trial can change without an image or a model."""

EPOCH_METRICS = ("tpr@0.01", "tpr@0.05")
"""Figures that attacks with epochs report after each."""

Columns = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class AttackObjective(Objective):
    """All that a trial may see: columns of all records, and membership of the development records.

    Development records are the public ones that are not held out.
    """

    space: Space
    attack: str
    """The attack that is evaluated."""

    metric: str
    signals: Mapping[str, Columns]
    """By signals.query_reduction: name to column, (N + M,) or (N + M, width), public records first."""

    scores: Mapping[str, Columns]
    """Columns of each reference score that is not searched."""

    reference_outputs: ReferenceOutputs | None
    """phi of the references, where reference scores are searched."""

    labels: NDArray[np.int64]
    """(N + M,) class indices."""

    num_classes: int
    member: NDArray[np.int8]
    """(N + M,) 1 or 0; -1 for held-out and private records."""

    fold: NDArray[np.int8]
    """(N + M,) fold from 0; -1 for held-out and private records."""

    threads: int = 0
    """Of each trial; 0: as the attacks are configured."""

    higher_is_better: bool = True

    @property
    def networks(self) -> int:
        """Networks of the evaluated attack."""
        return int(getattr(self.space.config.attacks[self.attack], "ensemble_size", 1))

    def table(self, config: RunConfig) -> SignalTable:
        """Return the table that the pipeline computes for a configuration of the space."""
        signals = self.signals[config.signals.query_reduction]
        columns = {name: signals[name] for name in expand_names(config.signals.names) if name in signals}
        for name, score in config.references.scores.items():
            if name in self.scores:
                columns |= self.scores[name]
            elif self.reference_outputs is not None:
                columns |= _score_columns({name: score}, self.reference_outputs)
        for name in config.references.sets:
            columns |= self.scores[f"references.sets.{name}"]
        return SignalTable(columns, self.labels, self.num_classes)

    def evaluate(self, params: Params, report: EpochCallback | None = None) -> TrialResult:
        """Cross-fit the attack, and those whose scores it reads, on the development records."""
        config = self.space.apply(params)
        attacks = required_attacks(config.attacks, self.attack)
        if self.threads:  # the number of threads changes no score
            attacks = {name: _with_threads(attack, self.threads) for name, attack in attacks.items()}
        reporting = last_with_epochs(attacks)
        epoch_metric = self.metric if self.metric in EPOCH_METRICS else EPOCH_METRICS[-1]

        def on_epoch(name: str, fold: int, epoch: int, values: Mapping[str, float]) -> None:
            if report is not None and fold == 0 and name == reporting:
                report(epoch + 1, values[epoch_metric])

        fitted = cross_fit(
            attacks, self.table(config), self.member, self.fold, seed=config.seed, report=on_epoch if report else None
        )
        return self._result(fitted[self.attack].scores, config)

    def _result(self, scores: NDArray[np.float64], config: RunConfig) -> TrialResult:
        """Return the figures of out-of-fold scores, (N + M,)."""
        in_fold = self.fold != NOT_IN_ANY_FOLD
        names = metric_names(config.evaluation.fprs)
        figures = {name: metric_value(name, scores[in_fold], self.member[in_fold]) for name in names}
        folds = [self.fold == fold for fold in range(int(self.fold.max()) + 1)]
        return TrialResult(figures, [metric_value(self.metric, scores[rows], self.member[rows]) for rows in folds])

    def with_threads(self, threads: int) -> Self:
        """Return the same objective for trials of this number of threads."""
        return replace(self, threads=threads)

    def batch_key(self, params: Params) -> str | None:
        """Return what configurations have in common whose MLPs differ in rates only; None for any other attack."""
        config = self.space.apply(params)
        attack = with_equal_rates(config.attacks[self.attack])
        if attack is None or len(required_attacks(config.attacks, self.attack)) > 1:
            return None
        plain: dict[str, Any] = to_mapping(replace(config, attacks={self.attack: attack}))
        return json.dumps(plain, sort_keys=True)

    def evaluate_batch(self, params: Sequence[Params]) -> list[TrialResult]:
        """Cross-fit MLPs of one shape in one batch; equal to `evaluate` within rounding."""
        configs = [self.space.apply(values) for values in params]
        attacks = [config.attacks[self.attack] for config in configs]
        scores = cross_fit_batch(attacks, self.table(configs[0]), self.member, self.fold, seed=configs[0].seed)
        return [self._result(row, config) for row, config in zip(scores, configs, strict=True)]


def metric_names(fprs: Sequence[float]) -> list[str]:
    """Return the metrics by which trials can be compared."""
    return ["auc", "partial_auc", *(f"tpr@{fpr:g}" for fpr in fprs)]


def metric_value(name: str, scores: NDArray[np.float64], member: NDArray[np.int8]) -> float:
    """Return one figure as `metrics.evaluate` computes it, without its interval."""
    if name == "auc":
        return auc(scores, member)
    if name == "partial_auc":
        return partial_auc(scores, member)[0]
    return tpr_at_fpr(scores, member, float(name.removeprefix("tpr@")))


def check_metric(config: RunConfig, metric: str) -> None:
    """Check that a metric is computed.

    Raises:
        MIAError: it is not.
    """
    legal = metric_names(config.evaluation.fprs)
    if metric not in legal:
        raise MIAError(
            f"--search.metric {metric!r} is not computed (its rates are --evaluation.fprs); {suggest(metric, legal)}"
        )


def required_attacks(attacks: Mapping[str, Attack], name: str) -> dict[str, Attack]:
    """Return an attack and those whose scores it reads, directly or not, in the order of the run."""
    names, queue = {name}, [name]
    while queue:
        read = {column for column in attacks[queue.pop()].required_columns() if column in attacks} - names
        names |= read
        queue += read
    return {name: attack for name, attack in attacks.items() if name in names}


def last_with_epochs(attacks: Mapping[str, Attack]) -> str | None:
    """Return the name of the last attack that trains in epochs."""
    names = [name for name, attack in attacks.items() if any(f.name == "epochs" for f in fields(attack))]
    return names[-1] if names else None


def build_attack_objective(space: Space, outputs: ModelOutputs, *, attack: str, metric: str) -> AttackObjective:
    """Compute every column that a configuration of the space can read, once.

    Args:
        space: Over `ROOTS`.
        outputs: From `query_models`.
        attack: The attack that is evaluated.
        metric: Figure that trials are compared by.
    """
    config, references = space.config, outputs.reference_sets.get("")
    names = [config.signals.names, *space.typed_choices("signals.names")]
    union = list(dict.fromkeys(name for choice in names for name in choice))
    reductions = {config.signals.query_reduction, *space.typed_choices("signals.query_reduction")}
    tables = {
        reduction: signal_table(
            replace(config, signals=replace(config.signals, names=union, query_reduction=reduction)),
            outputs.outputs,
            outputs.private_outputs,
        )
        for reduction in reductions
    }
    searched = {key.split(".")[2] for key in space.distributions if key.startswith("references.scores.")}
    scores = {
        name: _score_columns({name: score}, references.reference_outputs)
        for name, score in config.references.scores.items()
        if references is not None and name not in searched
    }
    further = {}
    for name, options in config.references.sets.items():
        columns = _score_columns(options.scores, outputs.reference_sets[name].reference_outputs)
        further[f"references.sets.{name}"] = {column_of(name, column): values for column, values in columns.items()}
    member, fold = outputs.attacker_view()
    first = next(iter(tables.values()))
    return AttackObjective(
        space=space.without_paths(),
        attack=attack,
        metric=metric,
        signals={reduction: table.columns for reduction, table in tables.items()},
        scores=scores | further,
        reference_outputs=_without_membership(references.reference_outputs)
        if references is not None and searched
        else None,
        labels=first.labels,
        num_classes=first.num_classes,
        member=member,
        fold=fold,
    )


def _without_membership(outputs: ReferenceOutputs) -> ReferenceOutputs:
    """Return reference outputs whose `keep` is False where it was set by membership; no score reads it there."""
    return outputs if outputs.drawn is None else replace(outputs, keep=outputs.keep & outputs.drawn)


def _score_columns(scores: Mapping[str, Any], outputs: ReferenceOutputs) -> dict[str, NDArray[np.float64]]:
    from mia_lightning.references.columns import reference_columns

    return reference_columns(scores, outputs)


def _with_threads(attack: Attack, threads: int) -> Attack:
    return replace(attack, **{"n_jobs": threads}) if hasattr(attack, "n_jobs") else attack
