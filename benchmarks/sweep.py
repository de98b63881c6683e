"""A sweep of MLP attacks compared with the naive way, batched networks with single ones, and Ray's actors kept or not.

python benchmarks/sweep.py [--trials 100] [--naive 2] [--records 16000] [--columns 12] [--epochs 20] [--ray-trials 50]

The naive way is a fresh process per trial that trains with Lightning's defaults and a DataLoader over the table; it is
run for a few trials and scaled. All ways cross-fit the same five folds of the same table, and the figures they find are
compared before a ratio is printed. --ray-trials 0 leaves Ray out.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np

HIDDEN, BATCH = [64, 32], 200


def table_of(records, columns):
    from mia_lightning.signals.table import SignalTable

    rng = np.random.default_rng(0)
    member = rng.permutation(np.arange(records) % 2).astype(np.int8)
    found = {f"c{i:02d}": rng.normal(size=records) + 0.1 * member for i in range(columns)}
    return SignalTable(found, np.zeros(records, np.int64), 1), member, (np.arange(records) % 5).astype(np.int8)


def settings(count, epochs):
    from mia_lightning.attacks.mlp import MLP

    rng = np.random.default_rng(1)
    return [
        MLP(
            hidden=HIDDEN,
            batch_size=BATCH,
            epochs=epochs,
            learning_rate=float(10 ** rng.uniform(-4, -2)),
            weight_decay=float(10 ** rng.uniform(-5, -1)),
            dropout=float(rng.uniform(0, 0.5)),
        )
        for _ in range(count)
    ]


def naive(records, columns, epochs, number):
    """One trial as it is often written: five fits with a default Trainer over a DataLoader of records."""
    import lightning as L
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from mia_lightning.metrics.roc import auc

    table, member, fold = table_of(records, columns)
    one = settings(number + 1, epochs)[number]

    class Head(L.LightningModule):
        def __init__(self):
            super().__init__()
            widths = [columns, *HIDDEN]
            layers = []
            for wide, narrow in pairwise(widths):
                layers += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(one.dropout)]
            self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

        def training_step(self, batch, _):
            x, y = batch
            loss = nn.functional.binary_cross_entropy_with_logits(self.layers(x).squeeze(1), y)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=one.learning_rate, weight_decay=one.weight_decay)

    inputs = np.stack(list(table.columns.values()), axis=1)
    scores = np.zeros(records)
    for held_out in range(5):
        rows = fold != held_out
        mean, scale = inputs[rows].mean(axis=0), inputs[rows].std(axis=0)
        x = torch.from_numpy(((inputs - mean) / scale).astype(np.float32))
        data = TensorDataset(x[rows], torch.from_numpy(member[rows]).float())
        head = Head()
        with tempfile.TemporaryDirectory() as folder:
            trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=folder)
            trainer.fit(head, DataLoader(data, batch_size=BATCH, shuffle=True))
        head.eval()
        with torch.inference_mode():
            scores[~rows] = head.layers(x[~rows]).squeeze(1).numpy()
    print(f"AUC {auc(scores, member):.6f}")


def timed(function):
    started = perf_counter()
    result = function()
    return perf_counter() - started, result


def heads(arguments):
    """P12: networks of one shape, side by side and one by one."""
    from mia_lightning.search.stacked_mlp import fit_batch

    table, member, _ = table_of(arguments.records, arguments.columns)
    some = settings(16, arguments.epochs)
    settings(1, 1)[0].fit(table, member, seed=0)  # imports
    together, stacked = timed(lambda: fit_batch(some, table, member, seed=0))
    alone, single = timed(lambda: [row.fit(table, member, seed=0) for row in some[:2]])
    alone *= len(some) / 2
    gap = max(float(np.abs(a.score(table) - b.score(table)).max()) for a, b in zip(stacked, single, strict=False))
    print(
        f"16 heads side by side {together:.1f} s, one by one (2 measured, scaled) {alone:.1f} s: "
        f"{alone / together:.1f}x; largest difference of a score {gap:.1e}"
    )


def sweeps(arguments):
    from mia_lightning.metrics.roc import auc
    from mia_lightning.search.stacked_mlp import cross_fit_batch

    table, member, fold = table_of(arguments.records, arguments.columns)
    some = settings(arguments.trials, arguments.epochs)

    def ours():
        groups = [some[start : start + 16] for start in range(0, len(some), 16)]
        return [scores for group in groups for scores in cross_fit_batch(group, table, member, fold, seed=0)]

    seconds, found = timed(ours)
    names = ("records", "columns", "epochs")
    words = [word for name in names for word in (f"--{name}", str(getattr(arguments, name)))]
    lost = []
    for number in range(arguments.naive):
        command = [sys.executable, __file__, *words, "--one-naive-trial", str(number)]
        took, done = timed(lambda command=command: subprocess.run(command, capture_output=True, text=True, check=True))
        own, theirs = auc(found[number], member), float(done.stdout.split("AUC ")[-1])
        assert abs(own - theirs) < 0.05, f"the two ways do not train the same: AUC {own:.4f} and {theirs:.4f}"
        lost.append(took)
    per_trial = sum(lost) / len(lost)
    print(
        f"{len(some)} trials of five folds in {seconds:.1f} s: {60 * len(some) / seconds:.1f} trials/minute; naive "
        f"{60 / per_trial:.2f} trials/minute ({len(lost)} measured, scaled): {per_trial * len(some) / seconds:.1f}x"
    )


def trivial(config):
    from ray import tune

    tune.report({"x": config["x"]})


def actors(arguments):
    """P13: trivial trials with actors that are used again, and with a new one for each."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    import ray
    from ray import tune

    ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)

    def sweep(count, reuse):
        with tempfile.TemporaryDirectory() as folder:
            config = tune.TuneConfig(num_samples=count, reuse_actors=reuse)
            run = tune.RunConfig(storage_path=str(Path(folder)), verbose=0)
            tune.Tuner(trivial, param_space={"x": 1}, tune_config=config, run_config=run).fit()

    sweep(4, True)
    marginal = {}
    for reuse, many in ((True, arguments.ray_trials), (False, max(arguments.ray_trials // 4, 8))):
        few = 4
        short, long = (timed(lambda n=n, reuse=reuse: sweep(n, reuse))[0] for n in (few, many))
        marginal[reuse] = max(long - short, 1e-9) / (many - few)
    print(
        f"trivial trials: {1000 * marginal[True]:.0f} ms each with actors used again, {1000 * marginal[False]:.0f} ms "
        f"with new ones: {marginal[False] / marginal[True]:.0f}x"
    )
    ray.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--naive", type=int, default=2)
    parser.add_argument("--records", type=int, default=16_000)
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--ray-trials", type=int, default=50)
    parser.add_argument("--one-naive-trial", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_naive_trial is not None:
        naive(arguments.records, arguments.columns, arguments.epochs, arguments.one_naive_trial)
        return
    heads(arguments)
    sweeps(arguments)
    if arguments.ray_trials:
        actors(arguments)


if __name__ == "__main__":
    main()
