"""Objectives, spaces and model outputs for tests of the search."""

import numpy as np

from mia_lightning.config.command_line import load_config
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.pipeline.results import SplitInfo
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD, draw_holdout
from mia_lightning.search.local import run_local
from mia_lightning.search.sampler import NumberedSampler, new_study
from mia_lightning.search.space import Space
from mia_lightning.search.trial import TrialResult

from . import ROOT

RATE = {"attacks.mlp.learning_rate": {"dist": "loguniform", "low": 1e-4, "high": 1e-2}}
DROPOUT = {"attacks.mlp.dropout": {"dist": "uniform", "low": 0.0, "high": 0.9}}


def run_config():
    return load_config(ROOT / "configs/demo.yaml")


def samples(space, search, count, seed=0):
    """Optuna's parameters of the first trials."""
    study = new_study(NumberedSampler(search, space, seed), search, higher_is_better=True)
    return [study.ask(space.distributions).params for _ in range(count)]


def model_outputs(n, *, signal, seed=0, share=0.5):
    """Outputs whose phi separates members by `signal`, with noise columns; half of the records are held out."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.repeat([0, 1], n // 2)).astype(np.int8)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 2, 3)).astype(np.float32)
    logits[np.arange(n), :, labels] += signal * member[:, None]
    outputs = Outputs(logits, rng.normal(size=(n, 40)).astype(np.float32), np.empty((n, 0), np.float32), labels)
    held = draw_holdout(member, share=share, seed=seed)
    fold = np.where(held, NOT_IN_ANY_FOLD, rng.permutation(np.arange(n) % 4)).astype(np.int8)
    return ModelOutputs(SplitInfo(np.arange(n), member, fold, held), None, outputs, None, {}, {}, [])


class QuadraticObjective:
    """Highest at dropout 0.3; raises at the calls that are listed."""

    metric, higher_is_better, networks = "auc", True, 1

    def __init__(self, fail=()):
        self.fail, self.seen = fail, []

    def evaluate(self, params, report=None):
        x = params["attacks.mlp.dropout"]
        self.seen.append(x)
        if len(self.seen) in self.fail:
            raise RuntimeError("on purpose")
        for epoch in range(1, 10):
            if report is not None:
                report(epoch, -abs(x - 0.3) * epoch)
        return TrialResult({"auc": -abs(x - 0.3)})

    def with_threads(self, threads):
        return self

    def batch_key(self, params):
        return None

    def evaluate_batch(self, params):
        raise AssertionError


def run_search(objective, search, done=()):
    """All trials of a local search over dropout, those of an interrupted one first."""
    space = Space(run_config(), DROPOUT, roots=("attacks",))
    trials = list(done)
    run_local(objective, space, search, seed=0, done={trial.number: trial for trial in done}, finished=trials.append)
    return trials
