"""Null searches: membership is tied to nothing, so whatever a search selects is at chance on the held-out set.

Each search compares attacks on noise columns. The
winner's figures where trials were compared are optimistic, a stated limit; those of the held-out set are not.

    python benchmarks/honesty.py --only search
"""

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.honesty_parts import Row, share
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
    outputs = ModelOutputs(split, None, None, None, {}, {}, [])  # type: ignore[arg-type]
    default, winner = (
        estimate(objective, outputs, space.apply(params), number) for number, params in ((0, {}), (1, best.params))
    )
    return compare(default, winner, outputs, metric=METRIC, seed=seed)


def sample(records: int, trials: int, columns: int, seed: int) -> list[float]:
    """Return which figures of one searched attack look better than chance on the held-out set."""
    return findings(null_search(seed, records=records, trials=trials, columns=columns))


def findings(comparison: Comparison) -> list[float]:
    """Return 0 or 1 per entry of `PROMISES`."""
    winner, gain = comparison.winner.outer, comparison.gain
    verdict = evidence({"a": winner})["a"]
    lows = interval_of(winner, "auc").low > 0.5, interval_of(winner, METRIC).low > FPR
    return [float(hit) for hit in (*lows, gain.low > 0, verdict.at_low_rates, verdict.on_average)]


PROMISES = (
    "held-out AUC of a searched attack above 0.5",
    "held-out TPR of a searched attack above its FPR",
    "held-out gain of a search above 0",
    "held-out verdict on a searched attack: recognized",
    "held-out verdict on a searched attack: on average",
)


def rows(samples: Sequence[Sequence[float]], records: int, trials: int, columns: int) -> Iterator[Row]:
    """Return the rows of null searches."""
    scenario = f"null search, {columns} noise columns, {trials} trials, {records:,} records"
    for promise, hits in zip(PROMISES, zip(*samples, strict=True), strict=True):
        yield share(promise, scenario, [hit > 0 for hit in hits], 0, 0.025)
