"""References by a LightningModule, by wrong and searched recipes, and cheaper ones, on small targets.

    python benchmarks/own_training.py images.npz [--targets 4] [--records 4000] [--references 8]

Targets are perceptrons on principal components of pixels, trained on independent random halves. Half of the records are
public, of known membership; the figures are LiRA's on the others, means over the targets with one standard error. Each
row but the anchored ones trains one set of references for all targets.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mia_lightning import load_config
from mia_lightning.config.search import SearchConfig
from mia_lightning.metrics.roc import evaluate
from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.fitting import fit_reference
from mia_lightning.references.inference import compute_phi
from mia_lightning.references.networks import network_of
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.difficulty_calibration import DifficultyCalibration
from mia_lightning.references.scores.lira import LiRA
from mia_lightning.references.splits import assign
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.user_training import resolved_training
from mia_lightning.search.local import run_local
from mia_lightning.search.reference_objective import ROOTS, Behavior, ReferenceObjective, _quantiles
from mia_lightning.search.space import Space
from mia_lightning.targets.base import Target

FEATURES, EPOCHS, BATCH = 128, 40, 100
HIDDEN = {"lr": 2e-3, "weight_decay": 1e-2, "smoothing": 0.1}
"""Recipe of the targets, which only the matched rows are told."""
FPRS = (0.01, 0.05)


class Lit(L.LightningModule):
    """A perceptron with its own training."""

    def __init__(self, num_classes=10, lr=2e-3, weight_decay=0.0, smoothing=0.0):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 256), nn.ReLU())
        self.head = nn.Linear(256, num_classes)

    def forward(self, features):
        return self.head(self.body(features))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1], label_smoothing=self.hparams.smoothing)

    def configure_optimizers(self):
        rates = {"lr": self.hparams.lr, "weight_decay": self.hparams.weight_decay}
        optimizer = torch.optim.AdamW(self.parameters(), **rates, fused=True)
        steps = self.trainer.estimated_stepping_batches + 1
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.hparams.lr, steps, pct_start=0.2, cycle_momentum=False
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def read(path, records):
    """Return the first records as principal components of their pixels (N, 128, 1, 1), and labels."""
    with np.load(path) as stored:
        images, labels = stored["images"][:records], stored["labels"][:records]
    pixels = images.reshape(records, -1).astype(np.float32) / 255
    pixels -= pixels.mean(axis=0)
    _, _, axes = np.linalg.svd(pixels[:1000], full_matrices=False)
    features = pixels @ axes[:FEATURES].T
    return (features / features.std()).reshape(records, FEATURES, 1, 1), labels.astype(np.int64)


def built_in(**options):
    return ReferenceTraining(
        **{
            "class_path": "built_in",
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "optimizer": "adamw",
            "learning_rate": HIDDEN["lr"],
            "weight_decay": HIDDEN["weight_decay"],
            "label_smoothing": HIDDEN["smoothing"],
            "flip": False,
        }
        | options
    )


def own(epochs=EPOCHS, **arguments):
    return ReferenceTraining(class_path="own_training:Lit", init_args=arguments, epochs=epochs, batch_size=BATCH)


class Bed:
    """Records, targets and their phi."""

    def __init__(self, arguments):
        features, labels = read(arguments.images, arguments.records)
        self.material = TrainingData(features, labels, (0.0,) * FEATURES, (1.0,) * FEATURES, 10, 1)
        self.n, self.only = arguments.records, arguments.only
        self.form = Target(Lit(), 10, None, "own_training:Lit", "")
        draw = np.random.default_rng(7)
        self.member = draw.random((arguments.targets, self.n)) < 0.5
        self.targets = [self.train(mask, built_in(), 1000 + t) for t, mask in enumerate(self.member)]
        results = [compute_phi(model, self.material, device="cpu") for model in self.targets]
        self.phi = np.stack([result.phi for result in results])
        self.accuracy = [
            float(np.mean([r.correct[mask == side].mean() for r, mask in zip(results, self.member, strict=True)]))
            for side in (True, False)
        ]

    def train(self, keep, training, seed, start=None, frozen=False):
        config = ReferencesConfig(count=2, training=training)
        network = network_of(config, self.form)(seed)
        if start is not None:
            network.load_state_dict(start.state_dict())
            network.body.requires_grad_(not frozen)
        with tempfile.TemporaryDirectory() as folder:
            options = {"seed": seed, "checkpoint": Path(folder) / "c", "device": "cpu"}
            return fit_reference(network, self.material, keep, resolved_training(config, self.form), {}, **options)

    def row(self, name, training, keep, *, drawn=None, starts=None, frozen=False, first=0):
        """Train K references, for all targets or for each, and print a row."""
        started, private = perf_counter(), slice(self.n // 2, self.n)
        if self.only not in name:
            return
        own_sets = starts is not None or drawn is not None
        cells, accuracy, phi = [], [], None
        for t in range(len(self.targets)):
            if phi is None or own_sets:
                masks = keep[t] if keep.ndim == 3 else keep
                models = [
                    self.train(mask, training, first + k, starts[t] if starts else None, frozen)
                    for k, mask in enumerate(masks)
                ]
                results = [compute_phi(model, self.material, device="cpu") for model in models]
                phi = np.stack([result.phi for result in results])
                accuracy += [(r.correct[m].mean(), r.correct[~m].mean()) for r, m in zip(results, masks, strict=True)]
            outputs = ReferenceOutputs(
                self.phi[t], phi, masks, self.material.labels, 10, None if drawn is None else drawn[t]
            ).records(np.arange(self.n)[private])
            key = self.member[t, private].astype(np.int8)
            for score in (LiRA(), DifficultyCalibration()):
                result = evaluate(score.columns(outputs)[""], key, FPRS)
                cells.append((result.auc, *(point.tpr for point in reversed(result.points))))
        steps = masks.shape[0] * masks.sum(axis=1).mean() * training.counts()[0] / 1e6
        in_, out_ = np.mean(accuracy, axis=0)
        values = np.array(cells).reshape(len(self.targets), 2, 3)
        mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
        shown = " | ".join(f"{m:.3f} ({e:.3f})" for m, e in zip(mean[0], error[0], strict=True))
        calibrated = " / ".join(f"{m:.3f}" for m in mean[1])
        line = f"| {name} | {len(masks)} | {steps:.2f} M | {in_:.1%} / {out_:.1%} | {shown} | {calibrated} |"
        print(f"{line} {perf_counter() - started:.0f} s", flush=True)


def searched(bed, trials=12):
    """Return the recipe of fewest trials that is closest to the first target on public records."""
    public, member = slice(0, bed.n // 2), bed.member[0, : bed.n // 2]
    result = compute_phi(bed.targets[0], bed.material, device="cpu")
    phi, correct = result.phi[public, 0], result.correct[public]
    target = Behavior(
        (float(correct[member].mean()), float(correct[~member].mean())),
        (_quantiles(phi[member]), _quantiles(phi[~member])),
    )
    training = {"class_path": "own_training:Lit", "init_args": {"lr": 1e-2}, "epochs": 10, "batch_size": BATCH}
    run = load_config("demo", references={"count": 2, "training": training})
    space = Space(
        run,
        {
            "references.training.init_args.lr": {"dist": "loguniform", "low": 3e-4, "high": 3e-2},
            "references.training.init_args.smoothing": {"dist": "choice", "values": [0.0, 0.05, 0.1, 0.2]},
            "references.training.epochs": {"dist": "int", "low": 5, "high": 40},
        },
        roots=ROOTS,
    )
    keep = assign("bernoulli", 1, np.full(bed.n, -1, np.int8), private=0, seed=3).keep
    scale = float(np.subtract(*np.quantile(phi, (0.95, 0.05))))
    objective = ReferenceObjective(space, bed.material, bed.form, keep, target, scale, 5, "cpu")
    search = SearchConfig(goal="reference_training", trials=trials, algorithm="optuna", space={"x": {}})
    done = []
    run_local(objective, space, search, seed=0, done={}, finished=done.append)
    best = min((t for t in done if t.status == "finished"), key=lambda t: t.figures["mismatch"])
    fresh = objective.fresh().evaluate(best.params).figures
    gaps = [fresh[f"accuracy_{side}"] - of for side, of in zip(("in", "out"), target.accuracy, strict=True)]
    steps = sum(space.apply(t.params).references.training.counts()[0] for t in done) * keep.sum() / 1e6
    print(
        f"searched in {len(done)} trials, {steps:.2f} M image-steps: {space.values(best.params)}; accuracy minus the "
        f"target's, on new references: members {gaps[0] * 100:+.1f}, non-members {gaps[1] * 100:+.1f} points",
        flush=True,
    )
    return space.apply(best.params).references.training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images")
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--references", type=int, default=8)
    parser.add_argument("--only", default="", help="part of the name of the rows to compute")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bed, k = Bed(arguments), arguments.references
    print("accuracy of the targets: {:.1%} on members, {:.1%} on non-members".format(*bed.accuracy))
    print("| references | K | image-steps | accuracy IN / OUT | AUC | TPR@5% | TPR@1% | difficulty calibration |")
    print("|---|---:|---:|---|---|---|---|---|")
    unknown = np.full(bed.n, -1, np.int8)
    keep = assign("balanced", k, unknown, private=0, seed=0).keep
    bed.row("built-in, matched", built_in(), keep)
    bed.row("built-in, matched, other seeds", built_in(), keep, first=500)
    bed.row("LightningModule, matched", own(**HIDDEN), keep)
    bed.row("LightningModule, wrong", own(epochs=10, lr=1e-2), keep)
    if arguments.only in "LightningModule, searched":
        bed.row("LightningModule, searched", searched(bed), keep)
    half = bed.n // 2
    anchored = [
        assign("anchored", k, np.append(m[:half].astype(np.int8), unknown[half:]), private=half, seed=0, released=0.5)
        for m in bed.member
    ]
    drawn = np.stack([a.drawn for a in anchored])
    bed.row("anchored", built_in(), np.stack([a.keep for a in anchored]), drawn=drawn)
    many = assign("balanced", 4 * k, unknown, private=0, seed=0).keep
    short = replace(built_in(), epochs=EPOCHS // 4)
    bed.row("start: target, a quarter of the epochs", short, many, starts=bed.targets)
    bed.row("head on the target's features", built_in(), keep, starts=bed.targets, frozen=True)


if __name__ == "__main__":
    main()
