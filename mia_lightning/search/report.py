"""What a sweep writes and says."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from mia_lightning.config.files import to_mapping
from mia_lightning.config.schema import RunConfig
from mia_lightning.config.search import TuneConfig
from mia_lightning.pipeline.run_folder import RunFolder
from mia_lightning.search.selection import Estimate, Outcome, Range, optimism, range_of
from mia_lightning.search.trial import Trial

SHOWN = 5
"""Trials on the terminal."""


def write_trials(folder: RunFolder, trials: Sequence[Trial], keys: Sequence[str], metric: str) -> None:
    """Write trials.csv: a row per trial with parameters, figures, the metric by fold, time and message."""
    names = list(dict.fromkeys([metric, *(name for trial in trials for name in trial.figures)]))
    with folder.atomic_write("trials.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("trial", "status", *keys, *names, "by_fold", "epochs", "seconds", "message"))
        for trial in trials:
            params = [_cell(trial.params[key]) if key in trial.params else "" for key in keys]
            values = [trial.figures.get(name, "") for name in names]
            folds = " ".join(repr(value) for value in trial.by_fold)
            reported = max(trial.epochs, default="")
            row = (trial.number, trial.status, *params, *values, folds, reported, round(trial.seconds, 3))
            writer.writerow((*row, trial.message))


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value)


def write_best(folder: RunFolder, config: RunConfig) -> None:
    """Write best.yaml, a whole configuration of train.py."""
    with folder.atomic_write("best.yaml") as file:
        yaml.safe_dump(to_mapping(config), file, sort_keys=False)


def write_outcome(folder: RunFolder, outcome: Mapping[str, Any]) -> None:
    """Write search_result.json."""
    with folder.atomic_write("search_result.json") as file:
        json.dump(outcome, file, indent=2, allow_nan=False)


def print_attack(
    config: TuneConfig, ranked: Sequence[Trial], trials: Sequence[Trial], found: Outcome, console: Console
) -> None:
    """Print the best trials, the honest estimate of the winner, and what to do next."""
    inner, outer = found.winner.inner, found.winner.outer
    metric = found.metric
    noise = range_of(inner, metric).standard_error
    _say(console, _counted(trials))
    title = (
        f"best trials by {metric}, out-of-fold: {inner.n_members:,} members, {inner.n_non_members:,} non-members, "
        f"standard error of a trial about {noise:.4f}"
    )
    console.print(_best(title, ranked, metric))
    if metric not in ("auc", "partial_auc"):
        partial = range_of(inner, "partial_auc")
        signal, smooth = (
            above / max(error, 1e-12)  # a perfect attack has no error
            for above, error in (
                (range_of(inner, metric).value, noise),
                (partial.value - 0.5, partial.standard_error),
            )
        )
        _say(
            console,
            f"{metric} is {signal:.1f} of its standard errors above 0 here, the partial AUC {smooth:.1f} of its own "
            "above chance; --search.metric partial_auc is the smoother objective",
        )
    console.print(_estimates(found))
    sure = "" if found.resolvable else "; the hold-out is too small to trust this interval"
    _say(
        console,
        f"hold-out, {outer.n_members:,} members, {outer.n_non_members:,} non-members: the winner's {metric} is "
        f"{found.gain.value:+.4f} [{found.gain.low:+.4f}, {found.gain.high:+.4f}] from the default's (paired "
        f"bootstrap){sure}",
    )
    _say(console, "wrote best.yaml, trials.csv, search_result.json in", config.output)
    _say(console, f"look:   tensorboard --logdir {config.output}/tensorboard")
    _say(console, f"repeat: train.py --config {config.output}/best.yaml")
    _say(
        console,
        f"submit: train.py --config {config.output}/best.yaml --evaluation.holdout 0 --output {config.output}-final",
    )


def print_recipe(
    config: TuneConfig,
    ranked: Sequence[Trial],
    trials: Sequence[Trial],
    fresh: Sequence[Mapping[str, float]],
    console: Console,
) -> None:
    """Print the best recipes, how the best does on references that no trial trained, and what to do next."""
    _say(console, _counted(trials))
    console.print(_best("recipes least unlike the target (0 = alike)", ranked, "mismatch"))
    default = next(trial for trial in trials if trial.number == 0)
    for name, trial, again in zip(("default", "winner"), (default, ranked[0]), fresh, strict=True):
        _say(
            console,
            f"{name} (trial {trial.number}): mismatch {trial.figures['mismatch']:.4f} in the search, "
            f"{again['mismatch']:.4f} on references that no trial trained (accuracy IN {again['accuracy_in']:.1%}, "
            f"OUT {again['accuracy_out']:.1%})",
        )
    _say(console, "wrote best.yaml, trials.csv, search_result.json in", config.output)
    count = config.references.count or 4
    _say(console, f"train:  train.py --config {config.output}/best.yaml --references.count {count}")


def _counted(trials: Sequence[Trial]) -> str:
    tried = [trial for trial in trials if trial.number > 0]
    counts = {status: sum(trial.status == status for trial in tried) for status in ("finished", "stopped", "failed")}
    said = [f"{count:,} {status}" for status, count in counts.items() if count]
    seconds = sum(trial.seconds for trial in tried)
    line = f"{len(tried):,} trials beside the default: {', '.join(said) or 'none'}; {seconds:,.0f} s of trials"
    failures = [f"trial {trial.number} failed: {trial.message}" for trial in tried if trial.status == "failed"]
    return "\n".join([line, *failures[:SHOWN]])


def _best(title: str, ranked: Sequence[Trial], metric: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE, pad_edge=False)
    table.add_column("trial", justify="right")
    table.add_column(metric, justify="right")
    others = [name for name in ranked[0].figures if name != metric][:2]
    for name in others:
        table.add_column(name, justify="right")
    table.add_column("parameters", overflow="fold")
    for trial in ranked[:SHOWN]:
        values = [f"{trial.figures[name]:.4f}" for name in (metric, *others)]
        params = ", ".join(f"{_short(key, trial.params)} {_cell(value)}" for key, value in trial.params.items())
        table.add_row(str(trial.number), *values, params or "the run's own")
    return table


def _short(key: str, keys: Mapping[str, Any]) -> str:
    """Return the last part of a field's name, or all of it where that is not unique."""
    last = key.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in keys) == 1 else key


def _estimates(found: Outcome) -> Table:
    """Return both estimates; the mean of the folds' models scores the hold-out, from which both rows gain."""
    title = f"{found.metric} where trials were compared, and on public records that no trial saw (95% intervals)"
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE, pad_edge=False)
    for name in ("", "inner", "outer", "inner - outer"):
        table.add_column(name, justify="right" if name else "left")
    for name, one in (("default", found.default), ("winner", found.winner)):
        table.add_row(f"{name} (trial {one.trial})", *_row(one, found.metric))
    return table


def _row(one: Estimate, metric: str) -> tuple[str, str, str]:
    def shown(value: Range) -> str:
        return f"{value.value:.4f} [{value.low:.4f}-{value.high:.4f}]"

    return shown(range_of(one.inner, metric)), shown(range_of(one.outer, metric)), f"{optimism(one, metric):+.4f}"


def _say(console: Console, *words: str) -> None:
    console.print(" ".join(words), soft_wrap=True, highlight=False, markup=False)
