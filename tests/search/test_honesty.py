"""Null searches: figures in the search are optimistic, held-out figures stay at chance."""

import runpy

import numpy as np
from helpers import ROOT


def test_holdout_detects_overfitting_on_null_search():
    module = runpy.run_path(str(ROOT / "benchmarks/honesty_search.py"))
    searches = [module["null_search"](seed, records=1000, trials=15, columns=30) for seed in range(4)]
    assert np.mean([search.winner.optimism(module["METRIC"]) for search in searches]) > 0.01
    for _, _, measured, error, nominal in module["rows_of"](searches, "small"):
        assert measured <= nominal + 3 * error
