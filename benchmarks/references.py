"""Attacks with references at K = 4, 8, 16, 32 on small targets of known membership.

python benchmarks/references.py pub.pt [--targets 4] [--references 32] [--records 4000] [--phi phi.npz]

Trains a three-block convolutional network on random halves of the first records: targets by independent coins,
references in balanced pairs. Prints TPR and AUC, mean over the targets, with 95% intervals. The phi of all models are
kept in --phi and used again.
"""

import argparse
import tempfile
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

from mia_lightning.metrics.roc import evaluate
from mia_lightning.records.readers import read_records
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.inference import compute_phi
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.attack_r import AttackR
from mia_lightning.references.scores.difficulty_calibration import DifficultyCalibration
from mia_lightning.references.scores.joint_lira import JointLiRA
from mia_lightning.references.scores.lira import LiRA
from mia_lightning.references.scores.official_lira import OfficialLiRA
from mia_lightning.references.scores.rmia import BASE, RMIA
from mia_lightning.references.splits import assign
from mia_lightning.references.training import train_reference
from mia_lightning.references.training_data import TrainingData

RECIPE = ReferenceTraining(epochs=30, batch_size=64, learning_rate=0.1)
FPRS = (0.001, 0.01, 0.05)
ATTACKS = {
    "LiRA online, empirical Bayes": LiRA(),
    "LiRA online, all views jointly": JointLiRA(),
    "LiRA online, fixed (pooled within)": LiRA(variance="fixed"),
    "LiRA online, published code, fixed": OfficialLiRA(fixed_variance=True),
    "LiRA online, published code, per sample": OfficialLiRA(),
    "LiRA offline, one-sided, empirical Bayes": LiRA(mode="offline"),
    "LiRA offline, one-sided, all views jointly": JointLiRA(mode="offline"),
    "LiRA offline, published code (two-sided), fixed": OfficialLiRA(mode="offline", fixed_variance=True),
    "RMIA online": RMIA(),
    "RMIA offline": RMIA(mode="offline"),
    "BASE offline": BASE(),
    "Attack R": AttackR(),
    "difficulty calibration": DifficultyCalibration(),
}


def network() -> nn.Module:
    blocks: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        blocks += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        blocks += [nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * 16, 10))


def train(job):
    number, keep, material = job
    torch.set_num_threads(1)
    torch.manual_seed(number)
    with tempfile.TemporaryDirectory() as folder:
        model = train_reference(
            network(), material, keep, RECIPE, seed=number, checkpoint=Path(folder) / "c", device="cpu"
        )
    result = compute_phi(model, material, device="cpu")
    return result.phi, result.correct[keep].mean(), result.correct[~keep].mean()


def trained(arguments):
    records = read_records(arguments.public)
    part = slice(0, arguments.records)
    material = TrainingData(
        records.images[part], records.labels[part], (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), 10, 2
    )
    unknown = np.full(arguments.records, -1, np.int8)
    keep = assign("balanced", arguments.references, unknown, private=0, seed=0).keep
    member = np.random.default_rng(1).random((arguments.targets, arguments.records)) < 0.5
    jobs = [(number, mask, material) for number, mask in enumerate(np.concatenate([member, keep]))]
    started = perf_counter()
    with get_context("spawn").Pool(arguments.processes) as pool:
        done = pool.map(train, jobs, chunksize=1)
    seconds = perf_counter() - started
    in_, out_ = (np.mean([row[i] for row in done]) for i in (1, 2))
    print(f"{len(jobs)} models in {seconds:.0f} s; accuracy {in_:.1%} on their records, {out_:.1%} on others")
    phi = np.stack([row[0] for row in done])
    np.savez(arguments.phi, phi=phi, keep=keep, member=member, labels=material.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("public")
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--references", type=int, default=32)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--phi", default="small_replica_phi.npz")
    arguments = parser.parse_args()
    if not Path(arguments.phi).exists():
        trained(arguments)
    with np.load(arguments.phi) as stored:
        phi, keep, member, labels = (stored[name] for name in ("phi", "keep", "member", "labels"))
    targets = len(member)
    print("| attack | K | AUC | TPR@5% | TPR@1% | TPR@0.1% |\n|---|---:|---:|---:|---:|---:|")
    print(
        row(
            "phi threshold",
            "",
            [evaluate(phi[t].mean(axis=1), member[t].astype(np.int8), FPRS) for t in range(targets)],
        )
    )
    for name, score in ATTACKS.items():
        for count in (4, 8, 16, 32):
            if count > len(keep):
                continue
            results = []
            for t in range(targets):
                reference_outputs = ReferenceOutputs(phi[t], phi[targets : targets + count], keep[:count], labels, 10)
                results.append(evaluate(score.columns(reference_outputs)[""], member[t].astype(np.int8), FPRS))
            print(row(name, count, results))


def row(name, count, evaluations):
    """Mean over targets; its half width from the single intervals, as each target has its own draw of records."""
    cells = [spread([(e.auc, e.auc_low, e.auc_high) for e in evaluations])]
    for fpr in (0.05, 0.01, 0.001):
        points = [next(p for p in e.points if p.fpr == fpr) for e in evaluations]
        cells.append(spread([(p.tpr, p.low, p.high) for p in points]))
    return f"| {name} | {count} | " + " | ".join(cells) + " |"


def spread(triples):
    middle, low, high = np.array(triples).T
    half = np.sqrt((((high - low) / 2) ** 2).sum()) / len(triples)
    return f"{middle.mean():.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
