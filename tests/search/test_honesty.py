"""Null searches: figures in the search are optimistic, held-out figures stay at chance."""

import numpy as np

from benchmarks.honesty_search import METRIC, findings, null_search, rows


def test_holdout_detects_overfitting_on_null_search():
    searches = [null_search(seed, records=1000, trials=15, columns=30) for seed in range(4)]
    assert np.mean([search.winner.optimism(METRIC) for search in searches]) > 0.01
    for row in rows([findings(search) for search in searches], 1000, 15, 30):
        assert row.measured <= row.high + 3 * row.standard_error
