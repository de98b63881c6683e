"""Time of heads trained as one stacked problem: 256 references of a 768xC head on 40,000 records.

python benchmarks/heads.py [--records 40000] [--features 768] [--heads 256] [--classes 10 100] [--epochs 20]

Features are noise around class means. Seconds are elapsed and of the processor; the latter over the number of threads
is what an idle machine needs.
"""

import argparse
from time import perf_counter, process_time

import numpy as np
import torch
from torch import nn

from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.head_references import COLUMNS
from mia_lightning.references.splits import assign
from mia_lightning.references.stacked_heads import StackedHeads, fit
from mia_lightning.references.training_data import TrainingData


def main():
    parser = argparse.ArgumentParser()
    for name, default in (("records", 40_000), ("features", 768), ("heads", 256), ("epochs", 20), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--precision", default="32-true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draw = np.random.default_rng(0)
    for classes in options.classes:
        labels = draw.integers(0, classes, options.records)
        means = draw.normal(size=(classes, options.features))
        features = (means[labels] * 0.1 + draw.normal(size=(options.records, options.features))).astype(np.float32)
        keep = torch.from_numpy(assign("balanced", options.heads, np.full(options.records, -1), private=0, seed=0).keep)
        material = TrainingData(features, labels, (), (), classes, queries=1)
        recipe = ReferenceTraining(epochs=options.epochs, precision=options.precision)
        started, before = perf_counter(), process_time()
        for part in torch.split(keep, max(1, COLUMNS // classes)):
            stack = StackedHeads([nn.Linear(options.features, classes) for _ in part])
            fit(stack, torch.from_numpy(features)[None], material, part, recipe, seed=0, device="cpu")
        elapsed, processor = perf_counter() - started, process_time() - before
        print(f"{options.heads} heads, {classes} classes, {options.epochs} epochs, {recipe.precision}: ", end="")
        print(f"{elapsed:.1f} s elapsed, {processor:.1f} s of the processor, {processor / options.threads:.1f} s idle")


if __name__ == "__main__":
    main()
