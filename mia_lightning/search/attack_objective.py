"""Trials of attacks: cross-fitting over the public records that are not held out, on columns that are there already."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.attacks import Attack
from mia_lightning.config.files import to_mapping
from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError, suggest
from mia_lightning.metrics.roc import auc, partial_auc, tpr_at_fpr
from mia_lightning.pipeline.model_outputs import ModelOutputs, signal_table
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD, cross_fit
from mia_lightning.search.space import Params, Space
from mia_lightning.search.stacked import cross_fit_together, without_tunable_rates
from mia_lightning.search.trial import EpochCallback, Judgment
from mia_lightning.signals.table import SignalTable

ROOTS = ("attacks", "signals", "references.scores")
"""Parts of a run that a trial can change without an image or a model."""

WATCHED = ("tpr@0.01", "tpr@0.05")
"""What attacks with epochs report after each."""

Columns = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class AttackProblem:
    """All that a trial may see: columns of all records, and membership of the public records that are not held out."""

    space: Space
    attack: str
    """The attack that is judged."""

    metric: str
    signals: Mapping[str, Columns]
    """By what becomes of queries: name to column, (N + M,) or (N + M, width), public records first."""

    scores: Mapping[str, Columns]
    """Columns of each score from references that is not searched."""

    reference_outputs: ReferenceOutputs | None
    """phi, where scores from references are searched."""

    labels: NDArray[np.int64]
    """(N + M,) class indices."""

    num_classes: int

    member: NDArray[np.int8]
    """(N + M,) 1 or 0; -1 for all that are held out or private."""

    fold: NDArray[np.int8]
    """(N + M,) fold from 0, or -1 for the same."""

    threads: int = 0
    """Of each trial; 0 = as the attacks say."""

    higher_is_better: bool = True

    @property
    def width(self) -> int:
        """Networks of the judged attack."""
        return int(getattr(self.space.config.attacks[self.attack], "ensemble_size", 1))

    def table(self, config: RunConfig) -> SignalTable:
        """Return the table that the pipeline would make for a configuration of the space."""
        from mia_lightning.references.columns import reference_columns
        from mia_lightning.signals import expand_names

        signals = self.signals[config.signals.query_reduction]
        columns = {name: signals[name] for name in expand_names(config.signals.names) if name in signals}
        for name, score in config.references.scores.items():
            if name in self.scores:
                columns |= self.scores[name]
            elif self.reference_outputs is not None:
                columns |= reference_columns({name: score}, self.reference_outputs)
        return SignalTable(columns, self.labels, self.num_classes)

    def judge(self, params: Params, report: EpochCallback | None = None) -> Judgment:
        """Cross-fit the judged attack, and those it reads, over the development rows."""
        config = self.space.apply(params)
        attacks = self.with_threads(needed(config.attacks, self.attack))
        epochs_of = with_epochs(attacks)
        shown = self.metric if self.metric in WATCHED else WATCHED[-1]

        def told(name: str, fold: int, epoch: int, values: Mapping[str, float]) -> None:
            if report is not None and fold == 0 and name == epochs_of:
                report(epoch + 1, values[shown])

        found = cross_fit(
            attacks, self.table(config), self.member, self.fold, seed=config.seed, report=told if report else None
        )
        return self.judgment(found[self.attack].scores, config)

    def limited(self, threads: int) -> AttackProblem:
        """Return the same problem for trials of so many threads."""
        return replace(self, threads=threads)

    def with_threads(self, attacks: Mapping[str, Attack]) -> dict[str, Attack]:
        """Return the attacks at the trial's threads; the number of threads changes no score."""
        if not self.threads:
            return dict(attacks)
        return {
            name: replace(attack, **{"n_jobs": self.threads}) if hasattr(attack, "n_jobs") else attack
            for name, attack in attacks.items()
        }

    def judgment(self, scores: NDArray[np.float64], config: RunConfig) -> Judgment:
        """Return the figures of out-of-fold scores, (N + M,)."""
        known = self.fold != NOT_IN_ANY_FOLD
        found = {name: figure(name, scores[known], self.member[known]) for name in metric_names(config.evaluation.fprs)}
        folds = [self.fold == fold for fold in range(int(self.fold.max()) + 1)]
        return Judgment(found, [figure(self.metric, scores[rows], self.member[rows]) for rows in folds])

    def stack_key(self, params: Params) -> str | None:
        """Return what is common to configurations whose networks differ in rates only; None for any other attack."""
        config = self.space.apply(params)
        apart = without_tunable_rates(config.attacks[self.attack])
        if apart is None or len(needed(config.attacks, self.attack)) > 1:
            return None
        plain: dict[str, Any] = to_mapping(replace(config, attacks={self.attack: apart}))
        return json.dumps(plain, sort_keys=True)

    def judge_together(self, params: Sequence[Params]) -> list[Judgment]:
        """Cross-fit networks of one shape side by side; equal to `judge` within rounding."""
        configs = [self.space.apply(one) for one in params]
        attacks = [config.attacks[self.attack] for config in configs]
        found = cross_fit_together(attacks, self.table(configs[0]), self.member, self.fold, seed=configs[0].seed)
        return [self.judgment(scores, config) for scores, config in zip(found, configs, strict=True)]


def metric_names(fprs: Sequence[float]) -> list[str]:
    """Return what trials can be judged by."""
    return ["auc", "partial_auc", *(f"tpr@{fpr:g}" for fpr in fprs)]


def figure(name: str, scores: NDArray[np.float64], member: NDArray[np.int8]) -> float:
    """Return one figure as `metrics.evaluate` has it, without its interval."""
    if name == "auc":
        return auc(scores, member)
    if name == "partial_auc":
        return partial_auc(scores, member)[0]
    return tpr_at_fpr(scores, member, float(name.removeprefix("tpr@")))


def check_metric(config: RunConfig, metric: str) -> None:
    """Check that a metric is reported.

    Raises:
        MIAError: it is not.
    """
    legal = metric_names(config.evaluation.fprs)
    if metric not in legal:
        raise MIAError(
            f"no attack reports search.metric {metric!r} (rates are evaluation.fprs); {suggest(metric, legal)}"
        )


def needed(attacks: Mapping[str, Attack], judged: str) -> dict[str, Attack]:
    """Return an attack and those whose scores it reads, directly or not, in the order of the run."""
    names, queue = {judged}, [judged]
    while queue:
        found = {name for name in attacks[queue.pop()].required_columns() if name in attacks} - names
        names |= found
        queue += found
    return {name: attack for name, attack in attacks.items() if name in names}


def with_epochs(attacks: Mapping[str, Attack]) -> str | None:
    """Return the last attack that has epochs."""
    names = [name for name, attack in attacks.items() if any(f.name == "epochs" for f in fields(attack))]
    return names[-1] if names else None


def attack_problem(space: Space, answered: ModelOutputs, *, attack: str, metric: str) -> AttackProblem:
    """Compute every column that a configuration of the space can ask for, once.

    Args:
        space: Over `ROOTS`.
        answered: From `query_models`.
        attack: The attack that is judged.
        metric: What it is judged by.
    """
    from mia_lightning.references.columns import reference_columns

    config, references = space.config, answered.references
    names = [config.signals.names, *space.values("signals.names")]
    union = list(dict.fromkeys(name for some in names for name in some))
    queries = {config.signals.query_reduction, *space.values("signals.query_reduction")}
    tables = {
        kind: signal_table(
            replace(config, signals=replace(config.signals, names=union, query_reduction=kind)),
            answered.outputs,
            answered.private_outputs,
        )
        for kind in queries
    }
    searched = {key.split(".")[2] for key in space.fields if key.startswith("references.scores.")}
    scores = {
        name: reference_columns({name: score}, references.reference_outputs)
        for name, score in config.references.scores.items()
        if references is not None and name not in searched
    }
    member, fold = answered.attacker_view()
    first = next(iter(tables.values()))
    return AttackProblem(
        space=space.bare(),
        attack=attack,
        metric=metric,
        signals={kind: table.columns for kind, table in tables.items()},
        scores=scores,
        reference_outputs=_hide_undrawn(references.reference_outputs) if references is not None and searched else None,
        labels=first.labels,
        num_classes=first.num_classes,
        member=member,
        fold=fold,
    )


def _hide_undrawn(reference_outputs: ReferenceOutputs) -> ReferenceOutputs:
    """Return evidence that does not say who is IN where that followed from membership; no score looks there anyway."""
    return (
        reference_outputs
        if reference_outputs.drawn is None
        else replace(reference_outputs, keep=reference_outputs.keep & reference_outputs.drawn)
    )
