"""Null searches: membership is tied to nothing, so whatever a search selects is at chance on the held-out set.

Rows are (promise, scenario, measured, standard error, nominal). Each search compares attacks on noise columns. The
winner's figures where trials were compared are optimistic, a stated limit; those of the held-out set are not.

    python benchmarks/honesty_search.py --repetitions 40
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from mia_lightning import load_config
from mia_lightning.config.search import SearchConfig
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.pipeline.results import SplitInfo
from mia_lightning.report.evidence import evidence
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD, assign_folds, draw_holdout
from mia_lightning.search.attack_objective import AttackObjective
from mia_lightning.search.local import run_local
from mia_lightning.search.selection import Comparison, compare, estimate, interval_of
from mia_lightning.search.space import Space
from mia_lightning.search.trial import Trial
from mia_lightning.signals import expand_names

Row = tuple[str, str, float, float, float]

METRIC, FPR = "tpr@0.05", 0.05


def null_search(seed: int, *, records: int, trials: int, columns: int) -> Comparison:
    """Return the winner of a search over subsets of noise columns, and the default."""
    rng = np.random.default_rng(seed)
    names = expand_names(["all"])[:columns]
    noise = {name: rng.normal(size=records) for name in names}
    member = rng.permutation(np.arange(records) % 2).astype(np.int8)
    held_out = draw_holdout(member, share=0.3, seed=seed)
    fold = assign_folds(np.where(held_out, np.int8(-1), member), folds=5, seed=seed)
    subsets = [sorted(rng.choice(names, rng.integers(1, 4), replace=False).tolist()) for _ in range(trials)]
    config = load_config(
        signals={"names": ["all"]},
        attacks={"a": {"class_path": "LightGBM", "init_args": {"columns": [names[0]], "n_estimators": 8, "n_jobs": 1}}},
        evaluation={"fprs": [FPR], "holdout": 0.3},
        seed=seed,
    )
    described = {"attacks.a.columns": {"dist": "choice", "values": subsets}}
    space = Space(config, described, roots=("attacks",))
    labels = np.zeros(records, np.int64)
    visible = np.where(fold == NOT_IN_ANY_FOLD, np.int8(-1), member)
    objective = AttackObjective(space, "a", METRIC, {"mean": noise}, {}, None, labels, 1, visible, fold)
    finished: list[Trial] = []
    search = SearchConfig(trials=trials, space=described, algorithm="grid")
    run_local(objective, space, search, seed=seed, done={}, finished=finished.append)
    best = max(finished, key=lambda trial: trial.figures[METRIC])
    split = SplitInfo(np.arange(records), member, fold, held_out)
    outputs = ModelOutputs(split, None, None, None, {}, None, [])  # type: ignore[arg-type]
    default, winner = (
        estimate(objective, outputs, space.apply(params), number) for number, params in ((0, {}), (1, best.params))
    )
    return compare(default, winner, outputs, metric=METRIC, seed=seed)


def rows(repetitions: int, *, records: int = 2000, trials: int = 100, columns: int = 30) -> Iterator[Row]:
    """Return how often a searched attack on noise looks better than chance on the held-out set."""
    comparisons = [null_search(seed, records=records, trials=trials, columns=columns) for seed in range(repetitions)]
    yield from rows_of(comparisons, f"null search, {columns} noise columns, {trials} trials, n = {records:,}")


def rows_of(comparisons: Sequence[Comparison], scenario: str) -> Iterator[Row]:
    """Return the rows of null searches."""
    held_out = [(interval_of(c.winner.outer, "auc").low, interval_of(c.winner.outer, METRIC).low) for c in comparisons]
    yield _row("held-out AUC of a searched attack above 0.5", scenario, [auc > 0.5 for auc, _ in held_out])
    yield _row("held-out TPR of a searched attack above its FPR", scenario, [tpr > FPR for _, tpr in held_out])
    yield _row("held-out gain of a search above 0", scenario, [c.gain.low > 0 for c in comparisons])
    tested = [evidence({"a": c.winner.outer})["a"] for c in comparisons]
    yield _row("held-out verdict on a searched attack: recognized", scenario, [row.at_low_rates for row in tested])
    yield _row("held-out verdict on a searched attack: on average", scenario, [row.on_average for row in tested])


def _row(promise: str, scenario: str, hits: list[bool]) -> Row:
    rate, nominal = float(np.mean(hits)), 0.025
    spread = max(rate * (1 - rate), nominal * (1 - nominal))
    return promise, scenario, rate, float(np.sqrt(spread / len(hits))), nominal


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=40)
    arguments = parser.parse_args()
    for promise, scenario, measured, error, nominal in rows(arguments.repetitions):
        print(f"| {promise} | {scenario} | {measured:.3f} | {error:.3f} | 0–{nominal:g} |  |")


if __name__ == "__main__":
    main()
