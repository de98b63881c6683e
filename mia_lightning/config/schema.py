"""Options of a run, shared by the command line, YAML files and the Python API.

A dataclass field is the option, the string below it the help. Nothing here imports torch, so that `--help` is instant.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from mia_lightning.attacks import Attack, Threshold
from mia_lightning.errors import suggest
from mia_lightning.evaluation.config import BoundaryConfig, FilingConfig
from mia_lightning.outputs.access import Access
from mia_lightning.references.config import ReferencesConfig
from mia_lightning.runtime.hardware import ACCELERATORS, Hardware
from mia_lightning.scores.calibration import Calibrator, Platt
from mia_lightning.security.csv_formulas import is_formula
from mia_lightning.targets.base import OutputKind


@dataclass
class DataConfig:
    """Records."""

    public: str | None = None
    """Records of known membership. A .pt, .npz or .safetensors file, a CSV file with images, a folder, a tar or zip
    archive, or a data set such as torchvision:CIFAR10."""

    private: str | None = None
    """Records to be scored. Their membership, if present, is used for a final evaluation only (default: none, only the
    public records are audited)."""

    reader: str = "auto"
    """Reader for both splits; auto detects the format from the file's content. Built-in readers: {readers}. A reader of
    your own is named as package.module. Formats: {formats}."""

    columns: dict[str, str] = field(default_factory=dict)
    """Meaning of columns whose names are not recognized, such as {in_set: membership, cat: label, junk: ignore}: id,
    image, label, membership, group, file, class_name or ignore."""

    mean: tuple[float, ...] | None = None
    """Channel means of the target's training, such as 0.49,0.48,0.45 (default: computed from the public images)."""

    std: tuple[float, ...] | None = None
    """Channel standard deviations of the target's training (default: computed from the public images)."""

    resize: int | None = None
    """Side in pixels to which images are resized (bilinear, antialiased) after normalization, for target and reference
    models alike; default: as stored."""

    gray_to_rgb: bool = False
    """Repeat the single channel of gray images three times, for a target that takes three."""

    transform: str | None = None
    """package.module:function applied to each normalized (and resized) batch (B, C, H, W) on its device, for target and
    reference models alike; mia_lightning.targets.transforms has a few. In a folder of image files it is applied to each
    PIL image, as the evaluation's transforms of torchvision and timm are, and returns a float tensor (C, H, W)."""

    def __post_init__(self) -> None:
        if self.resize is not None and not 1 <= self.resize <= 4096:
            raise ValueError(f"--data.resize must be between 1 and 4096, got {self.resize}")
        if (self.mean is None) != (self.std is None):
            example = "--data.mean [0.49, 0.48, 0.45] --data.std [0.25, 0.24, 0.26]"
            raise ValueError(f"give both mean and std, such as {example}, or neither")
        if not (self.mean or self.mean is None) or not (self.std or self.std is None):
            raise ValueError("--data.mean and --data.std need one number per channel, such as 0.49,0.48,0.45")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"--data.std must be above 0 in every channel, got {list(self.std)}")


@dataclass
class TargetConfig:
    """Target model."""

    checkpoint: str | None = None
    """Weights of the target. A state dict (.pt, .pth, .safetensors), a Lightning .ckpt, or a torch.export program
    (.pt2); not needed for an architecture that is a function returning the trained network."""

    architecture: str = "auto"
    """Torchvision model or package.module:Class; auto recognizes a torchvision ResNet from its weights."""

    weights: str | None = None
    """Set of weights to load where the checkpoint contains several, such as state_dict_ema or teacher; default:
    the plain one."""

    num_classes: int | None = None
    """Number of classes; default: read from the last layer of the weights."""

    output: Literal["auto", OutputKind, "labels"] = "auto"
    """Output of the target: one value per class (sigmoids: an independent probability each), a single logit or
    probability of class 1, or labels (the predicted class, with --access label); auto recognizes it from the values."""

    stem: Literal["auto", "imagenet", "cifar", "stride1_pool", "stride2_no_pool"] = "auto"
    """First layers of a torchvision ResNet, which weights do not determine: imagenet (stride 2, max-pooling), cifar
    (stride 1, no pooling), or a mixture; auto takes cifar for a 3x3 kernel, else imagenet."""

    class_order: list[int] | None = None
    """For each class of the records, the index of the target's output for it; default: 0, 1, 2, ..."""

    feature_layer: str | None = None
    """Submodule whose input is the penultimate feature vector (default: found by a probe)."""

    def __post_init__(self) -> None:
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"--target.num_classes must be at least 1, got {self.num_classes}")


@dataclass
class ExtractionConfig:
    """Model queries."""

    queries: Literal[1, 2, 18, 50] = 2
    """Deterministic views per record. 1: identity; 2: identity and flip; 18: both with shifts of up to 1 pixel; 50:
    both with shifts of up to 2 pixels."""

    views: str | None = None
    """package.module:function of your own views of records of any shape: called with a batch (B, ...) as the target
    receives it and the number of the view, from 1 to queries - 1, it returns that view, the same each time; view 0 is
    the stored record (default: mirrored and shifted images)."""

    gradients: bool = False
    """Compute input gradients as well (white-box); about triples the work on the stored image."""


@dataclass
class SignalsConfig:
    """Signals computed from the target's outputs."""

    names: list[str] = field(default_factory=lambda: ["standard"])
    """Signals, or presets of them (course, standard, all), or package.module:function."""

    query_reduction: Literal["mean", "first", "none"] = "mean"
    """Reduction of signals with one value per query. mean: average over the queries; first: the stored image only;
    none: one column per query."""


@dataclass
class EvaluationConfig:
    """Evaluation of the attacks."""

    folds: int = 5
    """Cross-validation folds over the public records."""

    holdout: float = 0.0
    """Share of the public records held out of all folds. They are drawn with the seed, stratified by membership, scored
    as private records are, and evaluated separately; a search reports on them."""

    fprs: tuple[float, ...] = (0.001, 0.01, 0.05)
    """False-positive rates at which the true-positive rate is reported."""

    group_copies: bool = False
    """Keep exact and near copies of an image in one group, as a group column does for a person: in folds, hold-out,
    intervals and permutations."""

    targets: Literal["all"] | tuple[int, ...] | None = None
    """Models of --references.imported that are audited as targets, each with the other models as its references: all,
    or numbers from 0 such as 0,3. One number is audited as any target is; several give a table of means over targets
    (default: the target of the run or of the file)."""

    calibration: Calibrator = field(default_factory=Platt)
    """Calibration of scores to probabilities, a separate column; records are always ranked by the raw score."""

    def __post_init__(self) -> None:
        if not 2 <= self.folds <= 100:
            raise ValueError(f"--evaluation.folds must be at least 2 and at most 100, got {self.folds}")
        if not 0 <= self.holdout <= 0.9:
            raise ValueError(f"--evaluation.holdout must lie between 0 and 0.9, got {self.holdout}")
        if not self.fprs or not all(0 < fpr < 1 for fpr in self.fprs):
            raise ValueError(f"--evaluation.fprs must lie between 0 and 1, got {list(self.fprs)}")


@dataclass
class RayConfig:
    """Ray cluster that trains reference models and runs trials."""

    address: str | None = None
    """Address of a running Ray cluster, as `ray start` prints it, or auto (default: Ray is started on this machine).
    Every machine of the cluster must have access to --cache_dir, a shared folder or an address such as
    s3://bucket/folder."""


@dataclass
class SubmissionConfig:
    """Submission file: one score per private record."""

    attack: str | None = None
    """Attack whose scores are submitted (default: the last one configured)."""

    value: Literal["score", "probability"] = "score"
    """Submitted value: the raw score, or its calibrated probability."""

    columns: tuple[str, str] = ("ids", "score")
    """Names of the two columns of submission.csv."""


@dataclass
class LoggerConfig:
    """Lightning logger that receives epochs, options and final values next to TensorBoard's events."""

    class_path: str | None = None
    """Class of the logger, such as lightning.pytorch.loggers.CSVLogger (default: none)."""

    init_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, such as {save_dir: logs}."""


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
    """Options of one run."""

    output: str = "runs/latest"
    """Folder for the results."""

    policy: str | None = None
    """Decision rule, a YAML file of criteria with margins: exit code 0 = passed, 3 = failed, 4 = inconclusive (default:
    none)."""

    cache_dir: str | None = None
    """Folder of cached model outputs and reference models, keyed by everything that determines them (default: .store in
    the folder that contains the output folder). An address such as s3://bucket/folder or gs://bucket/folder keeps a
    copy of the reference models there, for Ray workers that share no folder with this machine."""

    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    extraction: ExtractionConfig = field(default_factory=ExtractionConfig)
    hardware: Hardware = field(default_factory=Hardware)
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    references: ReferencesConfig = field(default_factory=ReferencesConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    access: Access = "references"
    """Access of the attacker, least first: label (the predicted class), top1, topk, probabilities_2, probabilities_4
    (rounded to so many decimals), probabilities, logits, features, or references (everything configured). What is
    beyond it is withheld from all attacks."""

    boundary: BoundaryConfig = field(default_factory=BoundaryConfig)

    attacks: dict[str, Attack] = field(default_factory=lambda: {"phi_threshold": Threshold()})
    """Attacks by name. Later ones may read the scores of earlier ones."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    submission: SubmissionConfig = field(default_factory=SubmissionConfig)
    report: FilingConfig = field(default_factory=FilingConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    seed: int = 42
    """Random seed of folds, attacks and bootstrap."""

    searched: SearchedConfig | None = None
    """Set by tune.py in best.yaml, so that the report gives held-out figures (default: not searched)."""

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("--attacks must name at least one attack")
        for name in (*self.attacks, *self.submission.columns):  # headers of CSV files
            if is_formula(name) or not name.isprintable():
                raise ValueError(f"{name!r} would be a formula in the CSV files; rename the attack or column")
        if self.submission.attack is not None and self.submission.attack not in self.attacks:
            raise ValueError(
                f"--submission.attack {self.submission.attack!r} is not configured; "
                f"{suggest(self.submission.attack, self.attacks)}"
            )
        if self.hardware.accelerator not in ACCELERATORS:  # cached outputs need no trainer, which would refuse it
            raise ValueError(
                f"--hardware.accelerator must be one of {', '.join(ACCELERATORS)}, got {self.hardware.accelerator!r}"
            )
        if self.target.output == "labels":
            if self.access not in ("label", "references"):
                raise ValueError(f"--target.output labels shows --access label alone, not {self.access}; leave it out")
            self.access = "label"
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed must be between 0 and 2**31 - 1, got {self.seed}")

    @property
    def submitted(self) -> str:
        """Name of the attack whose scores are submitted."""
        return self.submission.attack or list(self.attacks)[-1]
