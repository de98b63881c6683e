"""Batched MLP training against training one by one; losses."""

import numpy as np
import pytest

from mia_lightning.attacks.mlp import MLP
from mia_lightning.search.stacked_mlp import fit_batch
from mia_lightning.signals.table import SignalTable


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": True, "dropout": (0.0, 0.3, 0.5)},
        {"loss": "pairwise", "ensemble_size": 2, "dropout": (0.2, 0.0, 0.2)},
        {"loss": "partial_auc", "dropout": (0.0, 0.0, 0.0)},
        {"loss": "focal", "dropout": (0.0, 0.1, 0.0)},
    ],
)
def test_batch_equals_single_training(options):
    rng = np.random.default_rng(0)
    member = rng.permutation(np.repeat([0, 1], 150)).astype(np.int8)
    columns = {name: rng.normal(size=300) + 0.5 * member for name in "abc"}
    table = SignalTable(columns, np.zeros(300, np.int64), 1)
    rest = {name: value for name, value in options.items() if name != "dropout"}
    heads = [
        MLP(epochs=3, batch_size=32, hidden=[8, 4], learning_rate=rate, weight_decay=decay, dropout=dropout, **rest)
        for rate, decay, dropout in zip((1e-3, 1e-2, 3e-2), (0.0, 0.1, 1.0), options["dropout"], strict=True)
    ]
    for batched, single in zip(fit_batch(heads, table, member, seed=5), heads, strict=True):
        expected = single.fit(table, member, seed=5).score(table)
        scores = batched.score(table)
        assert expected.std() > 1e-4
        # a loss of pairs leaves the common level of all scores free, and AdamW blows up the rounding there
        share = 0.1 if heads[0].loss in ("pairwise", "partial_auc") else 1e-4
        np.testing.assert_allclose(scores - scores.mean(), expected - expected.mean(), atol=share * expected.std())


def test_losses_against_plain_loops():
    import torch

    from mia_lightning.attacks._losses import losses

    rng = np.random.default_rng(1)
    scores, member = rng.normal(size=(2, 60)), rng.integers(0, 2, (2, 60))
    member[0, :45], member[0, 45:] = 0, 1
    for kind in ("bce", "focal", "pairwise", "partial_auc"):
        values = losses(kind, torch.tensor(scores), torch.tensor(member, dtype=torch.float64)).numpy()
        top = max(1, int(np.ceil(0.05 * (member == 0).sum(axis=1).min())))
        for k in range(2):
            in_, out_ = scores[k][member[k] == 1], np.sort(scores[k][member[k] == 0])
            right = np.where(member[k] == 1, 1, -1) * scores[k]
            expected = {
                "bce": np.log1p(np.exp(-right)).mean(),
                "focal": (np.log1p(np.exp(-right)) / (1 + np.exp(right)) ** 2).mean(),
                "pairwise": np.mean([np.log1p(np.exp(o - i)) for i in in_ for o in out_]),
                "partial_auc": np.mean([np.log1p(np.exp(o - i)) for i in in_ for o in out_[-top:]]),
            }[kind]
            assert values[k] == pytest.approx(expected, rel=1e-9)
