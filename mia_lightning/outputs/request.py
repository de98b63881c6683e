"""Extraction requests: everything that determines the outputs, and so the key of the store."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mia_lightning.errors import MIAError
from mia_lightning.records.multi_hot import label_array
from mia_lightning.records.normalization import normalization
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.runtime.hardware import Hardware
from mia_lightning.runtime.own_files import ArraySpec
from mia_lightning.runtime.progress import RateCallback
from mia_lightning.runtime.store import array_digest, source_digest
from mia_lightning.targets.base import Target
from mia_lightning.targets.imported import source_of

FORMAT = 2
"""Version of the store's entries. 1: Lightning could load a checkpoint of another target under SLURM."""

CODE = (
    "outputs.extraction",
    "outputs.lightning_module",
    "outputs.fuse",
    "outputs.phi",
    "outputs.views",
    "outputs.datamodule",
    "records.normalization",
    "runtime.trainers",
    "targets.features",
)
"""Modules whose source determines the numbers."""


@dataclass(frozen=True, eq=False)
class ExtractionRequest:
    """Records to query a target on, and how.

    Raises:
        MIAError: a label outside the target's classes, or mean or std without one value per channel.
    """

    records: Splits[Records]
    target: Target
    mean: Sequence[float] | None
    """Per channel, of images in [0, 1]; None = that of the public images."""

    std: Sequence[float] | None
    """Per channel, of images in [0, 1]; None = that of the public images."""

    queries: int
    """Views per record: 1, 2, 18 or 50 (see `mia_lightning.outputs.views`)."""

    gradients: bool
    """Whether to compute the gradient of phi with respect to the image."""

    hardware: Hardware
    store: Path
    """Folder of the store of outputs."""

    views: str | None = None
    """The user's function of views, as `--extraction.views`."""

    on_rate: RateCallback | None = None
    """Receives the rate of the extraction; no part of the key."""

    def __post_init__(self) -> None:
        for records in self.records:
            check_labels(records, self.target)
        _ = self.normalization

    @cached_property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel."""
        return normalization(self.records.public, self.mean, self.std)

    def key_inputs(self, records: Records) -> dict[str, Any]:
        """Return everything that determines the outputs on these records, as plain values."""
        mean, std = self.normalization
        return {
            "format": FORMAT,
            "target": self.target.digest,
            "feature_layer": self.target.feature_layer,
            "images": array_digest(records.images),
            "labels": array_digest(label_array(records)),
            "mean": mean,
            "std": std,
            "queries": self.queries,
            **({"views": [self.views, source_of(self.views)]} if self.views else {}),
            "gradients": self.gradients,
            "precision": self.hardware.precision,
            "fuse": self.hardware.fuse,
            "code": source_digest(CODE),
            "torch": torch.__version__,
        }

    def array_specs(self, records: Records) -> dict[str, ArraySpec]:
        """Return the schema of the outputs on these records, by the field of `Outputs`."""
        count, classes = len(records), self.target.num_classes
        return {
            "logits": ArraySpec(np.float32, (count, self.queries, classes), is_finite=True),
            "features": ArraySpec(np.float32, (count, None)),
            "gradient_norms": ArraySpec(np.float32, (count, 3 if self.gradients else 0)),
            "labels": ArraySpec(np.int64, (count,), bounds=(0, classes - 1))
            if records.multi_hot is None
            else ArraySpec(np.int64, (count, classes), bounds=(0, 1)),
        }


def check_labels(records: Records, target: Target) -> None:
    """Raise MIAError if a label is none of the target's classes, or records have another number of labels."""
    if records.multi_hot is not None and (width := records.multi_hot.shape[1]) != target.num_classes:
        raise MIAError(
            f"{records.source}: has {width} labels per record, but the target returns {target.num_classes} per record; "
            "give one label of 0 or 1 for each value"
        )
    if (largest := int(records.labels.max())) >= target.num_classes:
        row = int(np.argmax(records.labels))
        from_one = largest == target.num_classes and records.labels[records.labels >= 0].min() == 1
        fix = "labels count from 0: subtract 1 from each" if from_one else "is this the target's data?"
        raise MIAError(
            f"{records.source}: record {records.ids[row]} has label {largest}, but the target has "
            f"{target.num_classes} classes (0 to {target.num_classes - 1}); {fix}"
        )
