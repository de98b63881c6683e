"""Options of reference training. Imports neither torch nor ray, so that `--help` is instant."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from mia_lightning.references.scores import ReferenceScore

BUILT_IN = "built_in"
"""Value of `ReferenceTraining.class_path` for training by its options."""

HEAD = "head"
"""Value of `ReferenceTraining.class_path` for training of the last layer alone, by the options."""

EPOCHS, BATCH_SIZE = 20, 256
"""Defaults where no checkpoint states them."""


@dataclass
class ReferenceTraining:
    """Training of reference models; the closer to the target's own training, the better the attacks."""

    class_path: str | None = None
    """package.module:NAME of a LightningModule with its own training_step and configure_optimizers, or of a function
    train(network, dataset, seed, on_epoch) that returns the trained network; built_in is training by the options below,
    and head trains by them only the target's last linear layer, on features of the target computed once, all references
    at the same time (default: the target's class where it is such a LightningModule; head for a model in memory of
    which only the last layer requires gradients; otherwise built_in)."""

    init_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the LightningModule; a parameter called network, net or model gets the target's network, untrained,
    unless it is given here."""

    transform: str | None = None
    """package.module:NAME of the transform of your own training, which replaces normalization: called with each stored
    image as torchvision's data sets do (a PIL image; a tensor (C, H, W) where it cannot be one), it returns the input
    of training_step. For training of your own only (default: normalized images)."""

    start: Literal["random", "target"] = "random"
    """First weights of each reference model: random, or the target's own (fine-tuning), from which a few epochs lead to
    a measure of difficulty. Such a model remembers some of the target's training records, so it suits columns of
    learned attacks (PerReferenceDifference), not scores that take it for independent of the target (LiRA, RMIA)."""

    epochs: int | None = None
    """Training epochs of each reference model (default: those that the target's Lightning checkpoint was trained for,
    where its LightningModule trains, otherwise 20)."""

    batch_size: int | None = None
    """Records per training step; the last, smaller batch of an epoch is dropped (default: the batch_size that the
    target's Lightning checkpoint saved, where its LightningModule trains, otherwise 256)."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer of reference training; sgd uses Nesterov momentum."""

    learning_rate: float = 0.1
    """Peak learning rate of the schedule."""

    momentum: float = 0.9
    """Momentum of the sgd optimizer."""

    weight_decay: float = 5e-4
    """Weight decay of all parameters."""

    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """Learning-rate schedule; one_cycle rises for the share `warmup` and falls to 0, both along cosines."""

    warmup: float = 0.2
    """Share of the steps in which the one_cycle schedule rises."""

    flip: bool = True
    """Flip images horizontally with probability 1/2 in training."""

    shift: int = 0
    """Largest random shift in pixels in training, with reflection padding (4: the usual random crop of CIFAR-10)."""

    label_smoothing: float = 0.0
    """Label smoothing of the training loss."""

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Precision of reference training; bf16-mixed is faster on processors that support it."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"references.training.{name} must be at least 1, got {count}")
        if self.learning_rate <= 0:
            raise ValueError(f"references.training.learning_rate must be above 0, got {self.learning_rate}")
        for name, below in (("momentum", 1.0), ("warmup", 1.0), ("label_smoothing", 1.0)):
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f"references.training.{name} must be in [0, {below:g}), got {getattr(self, name)}")
        if self.weight_decay < 0 or self.shift < 0:
            raise ValueError("references.training.weight_decay and .shift must be 0 or more")
        if self.start == "target" and self.class_path not in (None, BUILT_IN):
            raise ValueError(
                "references.training.start target belongs to training by the options; leave "
                "--references.training.class_path out"
            )
        if (self.init_args or self.transform) and self.is_built_in:
            option = "init_args" if self.init_args else "transform"
            raise ValueError(
                f"references.training.{option} belongs to training of your own; name it by "
                "--references.training.class_path package.module:NAME"
            )

    @property
    def is_built_in(self) -> bool:
        """Whether the options of this class train, rather than code of the user's."""
        return self.class_path in (None, BUILT_IN, HEAD)

    @property
    def is_head(self) -> bool:
        """Whether only the target's last layer is trained."""
        return self.class_path == HEAD

    def counts(self) -> tuple[int, int]:
        """Return epochs and records per step."""
        return self.epochs or EPOCHS, self.batch_size or BATCH_SIZE

    def key_inputs(self) -> dict[str, Any]:
        """Return the options that determine the weights."""
        values = {**asdict(self), **dict(zip(("epochs", "batch_size"), self.counts(), strict=True))}
        user_training = ("class_path", "init_args", "transform")
        if not self.is_built_in:
            return {name: values[name] for name in (*user_training, "epochs", "batch_size", "precision")}
        if self.start == "random":  # not named, as before there was a choice
            del values["start"]
        return {name: value for name, value in values.items() if name not in user_training}


@dataclass
class ReferencesConfig:
    """Reference (shadow) models; none by default."""

    count: int = 0
    """Number of reference models; a larger number later reuses those in the cache."""

    scheme: Literal["balanced", "bernoulli", "anchored"] = "balanced"
    """Training records of each reference model. balanced: a random half, and the other half for the next model;
    bernoulli: each record with probability 1/2; anchored: all public members and no public non-members, except that
    private records and a released share of the public ones are included with probability 1/2."""

    anchored_release: float = 0.25
    """Share of the public records that each anchored reference model draws at random; it scores only these."""

    architecture: str | None = None
    """Network of the reference models (default: the target's); required where the target is an exported program or a
    function that returns it trained."""

    training: ReferenceTraining = field(default_factory=ReferenceTraining)

    trainer: dict[str, Any] = field(default_factory=dict)
    """Options of Lightning's Trainer for references trained by a LightningModule, such as {max_epochs: 30, precision:
    bf16-mixed, gradient_clip_val: 1.0}; callbacks are a list of {class_path, init_args}."""

    queries: Literal[1, 2, 18, 50] | None = None
    """Views per record on which target and reference models are compared (default: --extraction.queries)."""

    temperature: float = 1.0
    """Temperature by which the logits of target and reference models are divided before phi is computed; the authors
    of RMIA and BASE also use 2."""

    workers: int = 0
    """Ray workers that train at the same time; 0 trains in this process, without Ray."""

    threads: int = 1
    """CPU threads of each Ray worker; without workers all threads are used."""

    gpus_per_worker: float = 0.0
    """GPUs of each Ray worker, 0.25 for four workers per GPU; 0 trains on the CPU. Without workers a GPU is used if
    available."""

    accuracy_tolerance: float = 0.05
    """Difference in accuracy between reference models and target, on records IN or OUT of their training, above which
    a warning is printed."""

    scores: dict[str, ReferenceScore] = field(default_factory=dict)
    """Reference scores by name; attacks read their columns NAME and NAME_suffix."""

    imported: str | None = None
    """Models of others, instead of training any. A file (.npz; .npy; Parquet or CSV with one row per record) of phi,
    logits or probabilities and keep, records in the order of the run, public first; a folder in the layout of
    tensorflow/privacy, lira-pytorch or Privacy Meter; or a folder of checkpoints and a keep matrix. Without
    --data.public the arrays alone are audited."""

    labels: str | None = None
    """File of the records' labels (.npy, .npz, Parquet or CSV), for `imported` logits without labels."""

    exported: str | None = None
    """File (.npz) or folder (layout of tensorflow/privacy) to write with phi, keep, target and labels of all records,
    in a format of `imported`."""

    sets: dict[str, ReferencesConfig] = field(default_factory=dict)
    """Further sets of reference models, by name, each with the options of `references`, such as fine-tuned copies of
    the target next to models trained from random weights. Attacks read the columns of a score as SET_SCORE and
    SET_SCORE_suffix."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.workers < 0 or self.threads < 1 or self.gpus_per_worker < 0:
            raise ValueError("references.count, .workers and .gpus_per_worker must be 0 or more, .threads at least 1")
        if self.temperature <= 0:
            raise ValueError(f"references.temperature must be above 0, got {self.temperature}")
        if not 0 < self.anchored_release < 1:
            raise ValueError(f"references.anchored_release must lie between 0 and 1, got {self.anchored_release}")

        for name, further in self.sets.items():
            if not name.isidentifier():
                raise ValueError(f"references.sets: {name!r} cannot name columns; use letters, digits and underscores")
            if further.sets:
                raise ValueError(f"references.sets.{name} holds sets itself; put them next to it in references.sets")
            if not further.wanted:
                raise ValueError(f"references.sets.{name} has no reference models; set --references.sets.{name}.count")

    @property
    def wanted(self) -> bool:
        """Whether the run has references at all."""
        return bool(self.by_set)

    @property
    def by_set(self) -> dict[str, ReferencesConfig]:
        """Options of every set of reference models by its name, "" for those outside `sets`; none without models."""
        first = {"": replace(self, sets={})} if self.sets else {"": self}
        return (first if self.count > 0 or self.imported is not None else {}) | self.sets

    @property
    def all_scores(self) -> dict[str, ReferenceScore]:
        """Scores of every set by the name of their columns."""
        return self.scores | {
            column_of(name, score): value
            for name, further in self.sets.items()
            for score, value in further.scores.items()
        }


def column_of(set_name: str, column: str) -> str:
    """Return the name of a column of a set's scores, as attacks read it."""
    return f"{set_name}_{column}" if set_name else column
