"""The one typed configuration that the command line, YAML files and the Python API share.

A dataclass field is the option, the string below it the help. Nothing here imports torch, so that `--help` is instant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mia_lightning.attacks import Attack, Threshold
from mia_lightning.calibration import Calibrator, Platt
from mia_lightning.errors import MIAError, suggest
from mia_lightning.hardware import Hardware
from mia_lightning.likelihoods import ReferenceScore
from mia_lightning.references.config import ReferencesConfig
from mia_lightning.spreadsheets import is_formula

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


LARGEST = 2**20
"""Bytes of a configuration file."""

MOST_VALUES, DEEPEST = 100_000, 50
"""Limits of a configuration with its aliases written out."""


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
    """Which reader takes both: auto looks at what the file is."""

    mean: tuple[float, ...] | None = None
    """Per-channel mean that the target's training normalised with; computed from the public images when not given."""

    std: tuple[float, ...] | None = None
    """Per-channel standard deviation, likewise."""

    def __post_init__(self) -> None:
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
    """A torchvision model's name, package.module:Class, or auto (a ResNet recognised from the weights)."""

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

    store: str | None = None
    """Folder where outputs are kept under a key of all that determines them, and found again by later runs; by default
    .store beside the output folder."""


@dataclass
class SignalsConfig:
    """Which signals are computed from the target's outputs."""

    names: list[str] = field(default_factory=lambda: ["standard"])
    """Signals, or presets of them (seed, standard, all), or package.module:function."""

    queries: Literal["mean", "original", "each"] = "mean"
    """Per-query signals: averaged over the queries, of the stored image alone, or one column per query."""


@dataclass
class EmbeddingConfig:
    """A network of your own, trained on other data, whose features describe an image: the column `embedding`."""

    architecture: str | None = None
    """As --target.architecture; no embedding when not given."""

    checkpoint: str | None = None
    """Its weights, as --target.checkpoint."""

    feature_layer: str | None = None
    """As --target.feature_layer."""

    mean: tuple[float, ...] | None = None
    """Per-channel mean that its training normalised with; computed from the public images when not given."""

    std: tuple[float, ...] | None = None
    """Per-channel standard deviation, likewise."""

    def __post_init__(self) -> None:
        if self.architecture is None and self.checkpoint is not None:
            raise ValueError("embedding.checkpoint needs embedding.architecture (auto, or a model's name)")
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both embedding.mean and embedding.std, or neither")


@dataclass
class EvaluationConfig:
    """How attacks are compared."""

    folds: int = 5
    """Cross-fitting folds over the public records."""

    hold_out: float = 0.0
    """Share of the public records that no fold sees: drawn from the seed, by membership and class alike, scored as
    private records are, and given figures of their own. A search reports on them."""

    fprs: tuple[float, ...] = (0.001, 0.01, 0.05)
    """False-positive rates at which the true-positive rate is reported."""

    calibration: Calibrator = field(default_factory=Platt)
    """How a score becomes a probability, in a column of its own; ranking is always by the raw score."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")
        if not 0 <= self.hold_out <= 0.9:
            raise ValueError(f"hold_out must lie between 0 and 0.9, got {self.hold_out}")
        if not self.fprs or not all(0 < fpr < 1 for fpr in self.fprs):
            raise ValueError(f"fprs must lie between 0 and 1, got {self.fprs}")


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
class RunConfig:
    """One run: records, target, signals, attacks, evaluation, output."""

    output: str = "runs/latest"
    """Folder that receives everything the run leaves."""

    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    extraction: ExtractionConfig = field(default_factory=ExtractionConfig)
    hardware: Hardware = field(default_factory=Hardware)
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    references: ReferencesConfig = field(default_factory=ReferencesConfig)

    attacks: dict[str, Attack] = field(default_factory=lambda: {"phi_threshold": Threshold()})
    """Name to attack, in the order in which later ones may read the scores of earlier ones."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    submission: SubmissionConfig = field(default_factory=SubmissionConfig)

    seed: int = 42
    """Drives folds, attacks and bootstrap."""

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


Config = TypeVar("Config", bound=RunConfig)


def load_config(*files: str | Path, **overrides: Any) -> RunConfig:
    """Read YAML files, later ones over earlier ones, then the overrides.

    Args:
        files: Paths of YAML files.
        overrides: Top-level options: `data={"public": "pub.pt"}, seed=1`.

    Raises:
        MIAError: an unknown key, a value of the wrong type or out of range, an unreadable file.
    """
    from mia_lightning.parsing import parse_mapping

    merged: dict[str, Any] = {}
    for file in files:
        merged = overlay(merged, read_yaml(file))
    return parse_mapping(overlay(merged, overrides))


def instantiate(parser: ArgumentParser, parsed: Any, kind: type[Config]) -> Config:
    """Build the dataclasses of a parsed configuration."""
    built = parser.instantiate(parsed)
    return kind(**{f.name: built[f.name] for f in fields(kind)})


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML file of plain data (no tags are honoured).

    Raises:
        MIAError: missing, not YAML, or not a mapping.
    """
    import yaml

    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise MIAError(f"{path} has over {LARGEST >> 10} KiB; expected a configuration")
        loader = yaml.SafeLoader(content.decode("utf-8-sig"))
        node = loader.get_single_node()
        _check_size(node, str(path))
        values = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise MIAError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:  # a date of month 99; too deep
        raise MIAError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise MIAError(f"{path} holds a {type(values).__name__}; expected a mapping of options")
    return values


def _check_size(root: Any, source: str) -> None:
    """Refuse what no configuration is: aliases that unfold without end, deep nesting, keys that are no text.

    Args:
        root: A node of PyYAML, or None; nothing has been built from it yet.
        source: The file, for error sentences.
    """
    left, seen = [(root, 1)], 0
    while left:
        node, depth = left.pop()
        parts = node.value if node is not None and not isinstance(node.value, str) else []
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        seen += 1 + len(inner)
        if seen > MOST_VALUES or depth > DEEPEST:
            limits = f"{MOST_VALUES:,} values or {DEEPEST} levels"
            raise MIAError(f"{source} unfolds to over {limits}; expected a configuration")
        odd = [key for key, _ in parts if not key.tag.endswith((":str", ":merge"))] if parts and inner != parts else []
        if odd:
            raise MIAError(f"{source} has an option that is no text ({odd[0].tag}); expected a name")
        left += [(part, depth + 1) for part in inner]


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with `above` laid over it, mapping by mapping; null takes an entry of a mapping away.

    An entry with another `class_path` replaces the one below whole, since their options differ.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and not _other_class(old, value):
            merged[key] = overlay(old, value)
        else:
            merged[key] = value
    return merged


def _other_class(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "class_path" in new and new["class_path"] != old.get("class_path")


def to_mapping(config: Any) -> Any:
    """Return the plain nested values of a configuration, as YAML holds them; classes as class_path and init_args."""
    if is_dataclass(config) and not isinstance(config, type):
        values = {f.name: to_mapping(getattr(config, f.name)) for f in fields(config) if f.init}
        if isinstance(config, Attack | Calibrator | ReferenceScore):
            return {"class_path": class_path(type(config)), "init_args": values}
        return values
    if isinstance(config, dict):
        return {key: to_mapping(value) for key, value in config.items()}
    if isinstance(config, Sequence) and not isinstance(config, str):
        return [to_mapping(value) for value in config]
    return config


def shareable(config: Any) -> Any:
    """Return `to_mapping` with every path cut down to its last name, for files that leave this machine."""
    return _without_folders(to_mapping(config))


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return re.sub(r"[^?=&:,]*[/\\]", "", value) if isinstance(value, str) else value


def portable(values: Any) -> Any:
    """Return plain nested values with absolute paths rewritten relative to the working directory.

    What a run leaves shall tell nothing of the machine it ran on, and rerun from the same directory.
    """
    if isinstance(values, dict):
        return {key: portable(value) for key, value in values.items()}
    if isinstance(values, list):
        return [portable(value) for value in values]
    if not isinstance(values, str):
        return values
    name, option, path = values.partition("?root=")  # of a data set, such as torchvision:CIFAR10?root=data
    if option:
        return name + option + portable(path)
    return os.path.relpath(values) if os.path.isabs(values) else values


def class_path(kind: type) -> str:
    """Return the name a configuration uses: the bare name of our own classes, the dotted path of others."""
    return kind.__name__ if kind.__module__.startswith("mia_lightning.") else f"{kind.__module__}.{kind.__qualname__}"
