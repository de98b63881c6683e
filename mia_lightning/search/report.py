"""Files and terminal report of a finished search."""

import csv
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mia_lightning.config.files import to_mapping
from mia_lightning.config.invocation import command, command_line, option, program
from mia_lightning.config.schema import RunConfig
from mia_lightning.config.search import TuneConfig
from mia_lightning.pipeline.run_folder import RunFolder
from mia_lightning.runtime.output_folder import next_free_folder
from mia_lightning.search.selection import Comparison, Interval, interval_of
from mia_lightning.search.space import Space
from mia_lightning.search.trial import Trial

SHOWN = 5
"""Trials on the terminal."""

MATCHED = 0.02
"""Difference in accuracy up to which references match the target."""


def write_trials(folder: RunFolder, trials: Sequence[Trial], space: Space, metric: str) -> None:
    """Write trials.csv: a row per trial with parameters, figures, the metric by fold, time and message."""
    names = list(dict.fromkeys([metric, *(name for trial in trials for name in trial.figures)]))
    keys = list(space.distributions)
    with folder.atomic_write("trials.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("trial", "status", *keys, *names, "by_fold", "epochs", "seconds", "message"))
        for trial in trials:
            values = space.values(trial.params)
            params = [_cell(values[key]) if key in values else "" for key in keys]
            figures = [trial.figures.get(name, "") for name in names]
            folds = " ".join(repr(value) for value in trial.by_fold)
            end = (folds, max(trial.epochs, default=""), round(trial.seconds, 3), trial.message)
            writer.writerow((trial.number, trial.status, *params, *figures, *end))


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value)


def write_best(folder: RunFolder, config: RunConfig) -> None:
    """Write best.yaml, a complete configuration of train.py."""
    with folder.atomic_write("best.yaml") as file:
        yaml.safe_dump(to_mapping(config), file, sort_keys=False)


def write_result(folder: RunFolder, result: Mapping[str, Any]) -> None:
    """Write search_result.json."""
    with folder.atomic_write("search_result.json") as file:
        json.dump(result, file, indent=2, allow_nan=False)


def print_attack_search(
    config: TuneConfig, ranked: Sequence[Trial], trials: Sequence[Trial], space: Space, comparison: Comparison,
    console: Console,
) -> None:  # fmt: skip
    """Print the best trials, the held-out figures of the winner, and what to do next."""
    inner, metric = comparison.winner.inner, comparison.metric
    value = interval_of(inner, metric)
    _print(console, count_sentence(trials))
    title = (
        f"best trials by {metric}, out-of-fold: {inner.n_members:,} members, {inner.n_non_members:,} non-members, "
        f"standard error of a trial about {value.standard_error:.4f}"
    )
    console.print(_best(title, ranked, space, metric))
    if metric not in ("auc", "partial_auc"):
        partial = interval_of(inner, "partial_auc")
        errors = [
            above / max(error, 1e-12)  # a perfect attack has no error
            for above, error in ((value.value, value.standard_error), (partial.value - 0.5, partial.standard_error))
        ]
        _print(
            console,
            f"{metric} is {errors[0]:.1f} standard errors above 0, the partial AUC {errors[1]:.1f} above chance; "
            "--search.metric partial_auc is the smoother objective",
        )
    console.print(_estimates(comparison))
    _print(console, gain_sentence(comparison))
    _print(console, "wrote best.yaml, trials.csv, search_result.json, report.html in", config.output)
    output = config.output.rstrip("/")
    best, final = option("config", f"{output}/best.yaml"), option("output", next_free_folder(f"{output}-final"))
    logs = command_line(option("logdir", f"{output}/tensorboard"))
    _print(console, f"tensorboard: {program('tensorboard', 'tensorboard.main')} {logs}")
    _print(console, f"reproduce:   {command('train')} {command_line(best)}")
    _print(console, f"submit:      {command('train')} {command_line([*best, '--evaluation.holdout', '0', *final])}")


def gain_sentence(comparison: Comparison) -> str:
    """Return the gain of the winner on the held-out set in words."""
    outer, gain = comparison.winner.outer, comparison.gain
    caution = "" if comparison.resolvable else "; too few held-out non-members to trust this interval"
    return (
        f"held-out set, {outer.n_members:,} members, {outer.n_non_members:,} non-members: {comparison.metric} of the "
        f"winner minus that of the default is {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] (paired "
        f"bootstrap){caution}"
    )


def fresh_sentences(
    trials: Sequence[Trial], ranked: Sequence[Trial], fresh: Sequence[Mapping[str, float]]
) -> list[str]:
    """Return the mismatch of default and winner on references that no trial trained in words."""
    return [
        f"{name} (trial {trial.number}): mismatch {trial.figures['mismatch']:.4f} in the search, "
        f"{again['mismatch']:.4f} on references that no trial trained (accuracy IN {again['accuracy_in']:.1%}, "
        f"OUT {again['accuracy_out']:.1%})"
        for name, trial, again in zip(("default", "winner"), (trials[0], ranked[0]), fresh, strict=True)
    ]


def unmatched_sentences(winner: Mapping[str, float], target: tuple[float, float]) -> list[str]:
    """Return what the winner's references do not match, from their figures and the target's accuracies."""
    return [
        f"not matched: accuracy on {group}, {winner[f'accuracy_{side}']:.1%} of the references and {accuracy:.1%} of "
        "the target; search other options of the training, or more trials"
        for side, group, accuracy in zip(("in", "out"), ("members", "non-members"), target, strict=True)
        if abs(winner[f"accuracy_{side}"] - accuracy) > MATCHED
    ]


def print_reference_search(
    config: TuneConfig, ranked: Sequence[Trial], trials: Sequence[Trial], space: Space,
    fresh: Sequence[Mapping[str, float]], target: tuple[float, float], console: Console,
) -> None:  # fmt: skip
    """Print the best trials, the mismatch of the best on references that no trial trained, and what to do next.

    `target` is the target's accuracy on known members and non-members; a difference above `MATCHED` is named.
    """
    _print(console, count_sentence(trials))
    console.print(_best("reference training closest to the target (0: alike)", ranked, space, "mismatch"))
    for sentence in [*fresh_sentences(trials, ranked, fresh), *unmatched_sentences(fresh[-1], target)]:
        _print(console, sentence)
    _print(console, "wrote best.yaml, trials.csv, search_result.json, report.html in", config.output)
    count = config.references.count or 4
    words = command_line(
        [*option("config", f"{config.output.rstrip('/')}/best.yaml"), "--references.count", str(count)]
    )
    _print(console, f"train:  {command('train')} {words}")


def count_sentence(trials: Sequence[Trial]) -> str:
    """Return the numbers of trials by their end, with the first failures, in words."""
    tried = [trial for trial in trials if trial.number > 0]
    counts = {status: sum(trial.status == status for trial in tried) for status in ("finished", "stopped", "failed")}
    text = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count) or "none"
    seconds = sum(trial.seconds for trial in tried)
    failures = [f"trial {trial.number} failed: {trial.message}" for trial in tried if trial.status == "failed"]
    line = f"{len(tried):,} trials in addition to the default: {text}; {seconds:,.0f} s of trials"
    return "\n".join([line, *failures[:SHOWN]])


def _best(title: str, ranked: Sequence[Trial], space: Space, metric: str) -> Table:
    names = [metric, *[name for name in ranked[0].figures if name != metric][:2]]
    table = _table(title, ["trial", *names])
    table.add_column("parameters", overflow="fold")
    for trial in ranked[:SHOWN]:
        values = space.values(trial.params)
        params = ", ".join(f"{_short(key, values)} {_cell(value)}" for key, value in values.items())
        figures = [f"{trial.figures[name]:.4f}" for name in names]
        table.add_row(str(trial.number), *figures, params or "the run's own")
    return table


def _short(key: str, keys: Mapping[str, Any]) -> str:
    """Return the last part of a field's name, or all of it where that is not unique."""
    last = key.rsplit(".", 1)[-1]
    return last if sum(name.rsplit(".", 1)[-1] == last for name in keys) == 1 else key


def _estimates(comparison: Comparison) -> Table:
    """Return both estimates; the mean of the folds' models scores the held-out set, from which both rows gain."""
    metric = comparison.metric
    title = f"{metric} where trials were compared (inner), and on the held-out set (outer); 95% intervals"
    table = _table(title, ["inner", "outer", "inner - outer"], first="")
    for name, estimate in (("default", comparison.default), ("winner", comparison.winner)):
        inner, outer = (_shown(interval_of(part, metric)) for part in (estimate.inner, estimate.outer))
        table.add_row(f"{name} (trial {estimate.trial})", inner, outer, f"{estimate.optimism(metric):+.4f}")
    return table


def _table(title: str, names: Sequence[str], first: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE, pad_edge=False)
    if first is not None:
        table.add_column(first)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _shown(interval: Interval) -> str:
    return f"{interval.value:.4f} [{interval.low:.4f}-{interval.high:.4f}]"


def _print(console: Console, *words: str) -> None:
    console.print(" ".join(words), soft_wrap=True, highlight=False, markup=False)
