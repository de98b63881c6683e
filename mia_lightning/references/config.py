"""Options of reference training. Imports neither torch nor ray, so that `--help` is instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mia_lightning.references.scores import ReferenceScore


@dataclass
class ReferenceTraining:
    """How a reference is trained; the closer to the target's own training, the better the attacks."""

    epochs: int = 20
    """Passes over the reference's own records."""

    batch_size: int = 256
    """Records per step; a last, smaller batch is left out, as shuffling brings its records into other epochs."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd is with Nesterov momentum."""

    learning_rate: float = 0.1
    """The highest of the schedule."""

    momentum: float = 0.9
    """Of sgd."""

    weight_decay: float = 5e-4
    """Of all parameters."""

    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """one_cycle rises for the share `warmup` and falls to 0, both along cosines."""

    warmup: float = 0.2
    """Share of the steps in which one_cycle rises."""

    flip: bool = True
    """Whether images are mirrored with probability one half."""

    shift: int = 0
    """Largest random shift in pixels, after reflection at the border (4 is the usual random crop of CIFAR-10)."""

    label_smoothing: float = 0.0
    """Share of the target distribution spread over all classes."""

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Precision of training; bf16-mixed is faster on processors that know it."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"references.training.{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"references.training.learning_rate must be above 0, got {self.learning_rate}")
        for name, below in (("momentum", 1.0), ("warmup", 1.0), ("label_smoothing", 1.0)):
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f"references.training.{name} must be in [0, {below:g}), got {getattr(self, name)}")
        if self.weight_decay < 0 or self.shift < 0:
            raise ValueError("references.training.weight_decay and .shift must be 0 or more")


@dataclass
class ReferencesConfig:
    """Reference (shadow) models; none by default."""

    count: int = 0
    """How many to train. A larger count later keeps those that are there."""

    scheme: Literal["balanced", "bernoulli", "anchored"] = "balanced"
    """Which records a reference is trained on: balanced = a random half, and the other half for the next reference;
    bernoulli = each record with probability one half; anchored = the public members and none of the public non-members,
    and coins for private records and for a released part of the public ones."""

    anchored_release: float = 0.25
    """anchored: share of the public records that a reference draws by coin; only these are scored by it."""

    architecture: str | None = None
    """Network of the references; the target's own when not given. Needed where the target came trained or exported."""

    training: ReferenceTraining = field(default_factory=ReferenceTraining)

    queries: Literal[1, 2, 18, 50] | None = None
    """Views per record that target and references are asked about; those of the extraction when not given."""

    temperature: float = 1.0
    """What all logits are divided by before phi is taken, of target and references alike; RMIA's and BASE's authors
    also use 2."""

    workers: int = 0
    """Ray workers that train at the same time; 0 trains in this process, without ray."""

    threads: int = 1
    """CPU threads of each worker; with workers 0 all are used."""

    gpus_per_worker: float = 0.0
    """GPUs of each worker, 0.25 for four on one. 0 trains on the CPU; with workers 0 a GPU is used if there is one."""

    accuracy_tolerance: float = 0.05
    """Difference of the accuracy of references and target, on records IN or OUT of their training, from which on a
    warning is given."""

    scores: dict[str, ReferenceScore] = field(default_factory=dict)
    """Name to score; each gives columns that attacks read, NAME and NAME_suffix."""

    imported: str | None = None
    """An .npz with phi (K, N, Q), keep (K, N) and target (N, Q) computed elsewhere, public records first; no reference
    is trained then."""

    exported: str | None = None
    """An .npz to be written with phi, keep, target and labels of all records, as `imported` takes it."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.workers < 0 or self.threads < 1 or self.gpus_per_worker < 0:
            raise ValueError("references.count, .workers and .gpus_per_worker must be 0 or more, .threads at least 1")
        if self.temperature <= 0:
            raise ValueError(f"references.temperature must be above 0, got {self.temperature}")
        if not 0 < self.anchored_release < 1:
            raise ValueError(f"references.anchored_release must lie between 0 and 1, got {self.anchored_release}")

    @property
    def wanted(self) -> bool:
        """Whether the run has references at all."""
        return self.count > 0 or self.imported is not None
