"""The one typed configuration that the command line, YAML files and the Python API share.

A dataclass field is the option, the string below it the help. Nothing here imports torch, so that `--help` is instant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mia_lightning.attacks import Attack, Threshold
from mia_lightning.errors import suggest
from mia_lightning.references.config import ReferencesConfig
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.scores.calibration import Calibrator, Platt
from mia_lightning.security.csv_formulas import is_formula


@dataclass
class DataConfig:
    """Where the records come from."""

    public: str | None = None
    """Records whose membership is known: .pt, .npz, .safetensors, a CSV beside images, a folder, tar or zip, or a data
    set's name such as torchvision:CIFAR10."""

    private: str | None = None
    """Records to be scored. Membership found in them is used for a final evaluation only. Leave out to audit the
    public records alone."""

    reader: str = "auto"
    """Reader of both halves: auto detects the format from the file's content; or package.module of your own."""

    columns: dict[str, str] = field(default_factory=dict)
    """Meaning of columns whose names are not understood, such as {in_set: membership, cat: label, junk: ignore}: id,
    image, label, membership, group, file, class_name or ignore."""

    mean: tuple[float, ...] | None = None
    """Per-channel mean that the target's training normalized with; computed from the public images when not given."""

    std: tuple[float, ...] | None = None
    """Per-channel standard deviation, likewise."""

    resize: int | None = None
    """Side in pixels to which images are resized (bilinear, antialiased) after normalization, for target and reference
    models alike; default: as stored."""

    gray_to_rgb: bool = False
    """Repeat the single channel of gray images three times, for a target that takes three."""

    transform: str | None = None
    """package.module:function applied to each normalized (and resized) batch (B, C, H, W) on its device, for target and
    reference models alike; mia_lightning.targets.transforms has a few."""

    def __post_init__(self) -> None:
        if self.resize is not None and not 1 <= self.resize <= 4096:
            raise ValueError(f"--data.resize must be between 1 and 4096, got {self.resize}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std, or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std must be above 0 in every channel, got {self.std}")


@dataclass
class TargetConfig:
    """The classifier under attack."""

    checkpoint: str | None = None
    """Its weights: a state dict (.pt, .pth, .safetensors), a Lightning .ckpt, or a torch.export program (.pt2). Leave
    out where the architecture is a function that returns the network trained."""

    architecture: str = "auto"
    """A torchvision model's name, package.module:Class, or auto (a ResNet recognized from the weights)."""

    weights: str | None = None
    """Which set of weights to load where the checkpoint contains several, such as state_dict_ema or teacher; default:
    the plain one."""

    num_classes: int | None = None
    """Number of classes; default: read from the last layer of the weights."""

    output: Literal[
        "auto", "logits", "log_probabilities", "probabilities", "sigmoids", "one_logit", "one_probability"
    ] = "auto"
    """What the target returns: one value per class (sigmoids: an independent probability each), or for two classes a
    single logit or probability of class 1; auto recognizes it from the values."""

    stem: Literal["auto", "imagenet", "cifar", "stride1_pool", "stride2_no_pool"] = "auto"
    """First layers of a torchvision ResNet, which weights do not determine: imagenet (stride 2, max-pooling), cifar
    (stride 1, no pooling), or a mixture; auto takes cifar for a 3x3 kernel, else imagenet."""

    class_order: list[int] | None = None
    """For each class of the records, the index of the target's output for it; default: 0, 1, 2, ..."""

    feature_layer: str | None = None
    """Submodule whose input is the penultimate feature vector; found by a probe when not given."""


@dataclass
class ExtractionConfig:
    """What is asked of the target."""

    queries: Literal[1, 2, 18, 50] = 2
    """Deterministic views per record: 1 the image, 2 and its mirror, 18 both shifted by up to 1 pixel, 50 by up to
    2."""

    gradients: bool = False
    """Also take input gradients (white-box), which about triples the work on the stored image."""


@dataclass
class SignalsConfig:
    """Which signals are computed from the target's outputs."""

    names: list[str] = field(default_factory=lambda: ["standard"])
    """Signals, or presets of them (seed, standard, all), or package.module:function."""

    query_reduction: Literal["mean", "first", "none"] = "mean"
    """Per-query signals: averaged over the queries, of the stored image alone, or one column per query."""


@dataclass
class EvaluationConfig:
    """How attacks are compared."""

    folds: int = 5
    """Cross-fitting folds over the public records."""

    holdout: float = 0.0
    """Share of the public records that no fold sees: drawn from the seed, by membership and class alike, scored as
    private records are, and given figures of their own. A search reports on them."""

    fprs: tuple[float, ...] = (0.001, 0.01, 0.05)
    """False-positive rates at which the true-positive rate is reported."""

    calibration: Calibrator = field(default_factory=Platt)
    """How a score becomes a probability, in a column of its own; ranking is always by the raw score."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")
        if not 0 <= self.holdout <= 0.9:
            raise ValueError(f"holdout must lie between 0 and 0.9, got {self.holdout}")
        if not self.fprs or not all(0 < fpr < 1 for fpr in self.fprs):
            raise ValueError(f"fprs must lie between 0 and 1, got {self.fprs}")


@dataclass
class RayConfig:
    """The Ray cluster that trains reference models and runs trials."""

    address: str | None = None
    """A running Ray cluster to join, as `ray start` prints it, or auto (default: start Ray on this machine). Every
    machine of the cluster must see the folder of --cache_dir."""


@dataclass
class SubmissionConfig:
    """The file with one score per private record."""

    attack: str | None = None
    """The attack whose scores are written; the last one when not given."""

    value: Literal["score", "probability"] = "score"
    """The raw score, or its calibrated probability."""

    columns: tuple[str, str] = ("ids", "score")
    """Names of the two columns."""


@dataclass
class SearchedConfig:
    """Search that selected this configuration; tune.py writes it into best.yaml."""

    trials: int
    """Configurations that were compared, the starting one included."""

    attack: str
    """Attack whose figures were compared; empty for a search over references.training."""

    metric: str
    """Figure by which they were compared."""

    seen_records: int
    """Public records on which they were compared; figures on these are optimistic."""

    holdout: int
    """Public records that no trial saw, evaluation.holdout of them all; figures on these are not optimistic."""


@dataclass
class RunConfig:
    """One run: records, target, signals, attacks, evaluation, output."""

    output: str = "runs/latest"
    """Folder that receives everything the run leaves."""

    cache_dir: str | None = None
    """Folder where model outputs and reference models are cached under a key of all that determines them (default:
    .store beside the output folder)."""

    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    extraction: ExtractionConfig = field(default_factory=ExtractionConfig)
    hardware: Hardware = field(default_factory=Hardware)
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    references: ReferencesConfig = field(default_factory=ReferencesConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    attacks: dict[str, Attack] = field(default_factory=lambda: {"phi_threshold": Threshold()})
    """Name to attack, in the order in which later ones may read the scores of earlier ones."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    submission: SubmissionConfig = field(default_factory=SubmissionConfig)

    seed: int = 42
    """Drives folds, attacks and bootstrap."""

    searched: SearchedConfig | None = None
    """Set by tune.py in best.yaml, so that the report gives held-out figures (default: not searched)."""

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("attacks must name at least one attack")
        for name in (*self.attacks, *self.submission.columns):  # headers of CSV files
            if is_formula(name) or not name.isprintable():
                raise ValueError(f"{name!r} would be a formula in the CSV files; name the attack or column otherwise")
        if self.submission.attack is not None and self.submission.attack not in self.attacks:
            raise ValueError(
                f"submission.attack {self.submission.attack!r} is not configured; "
                f"{suggest(self.submission.attack, self.attacks)}"
            )
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be between 0 and 2**31 - 1, got {self.seed}")

    @property
    def submitted(self) -> str:
        """Name of the attack whose scores are submitted."""
        return self.submission.attack or list(self.attacks)[-1]
