"""Inputs of a target: the dtype that it receives, and samples of records to probe it with."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mia_lightning.errors import MIAError, printable
from mia_lightning.records.features import Features
from mia_lightning.records.records import Records
from mia_lightning.targets.base import InputDtype, Target
from mia_lightning.targets.estimators import EstimatorNetwork
from mia_lightning.targets.imported import first_line
from mia_lightning.targets.wrapper import unwrap

SAMPLE = 64
"""Records that probe a target, spread over all of them."""

SIDES = (32, 28, 64, 96, 224)
"""Sides of the noise images that probe a network whose images are not given."""


def input_dtype(network: nn.Module) -> InputDtype:
    """Return the dtype that a network takes of records that are not images."""
    network = unwrap(network)
    if isinstance(network, EstimatorNetwork):
        return "stored"
    return "int64" if any(isinstance(module, nn.Embedding) for module in network.modules()) else "float32"


def converted(records: Records, dtype: InputDtype) -> Records:
    """Return the records with the inputs that a target of this dtype receives."""
    if dtype == "stored":  # an estimator, for which an image is a row of pixels
        images = records.images[:] if records.is_image else records.images
        return replace(records, images=images.reshape(len(images), -1))
    if records.is_image or records.images.dtype == np.dtype(dtype):
        return records
    return replace(records, images=records.images.astype(dtype))


def sample_of(records: Records) -> NDArray[Any]:
    """Return up to 64 records' inputs as they are stored, spread over all of them."""
    rows = np.unique(np.linspace(0, len(records) - 1, SAMPLE).astype(np.int64))
    return without_missing(np.asarray(records.images[rows]))


def without_missing(inputs: NDArray[Any]) -> NDArray[Any]:
    """Return inputs with 0 in place of NaN, for a first query of any target."""
    return np.nan_to_num(inputs, nan=0.0) if inputs.dtype.kind == "f" and np.isnan(inputs).any() else inputs


def refuse_text(features: Features | None, name: str) -> None:
    """Raise MIAError for a target that takes numbers alone where a table has columns of text."""
    if features is not None and features.categories:
        columns = list(features.categories)
        raise MIAError(
            f"{name} takes numbers, but column {printable(columns[0], 40)!r} is not numeric ({len(columns)} such "
            f"columns); {features.encode(columns)}"
        )


def check_missing(target: Target, records: Records, features: Features | None = None) -> None:
    """Query the target on records with missing values.

    Args:
        target: With any network.
        records: A table; others are not checked.
        features: Columns of the table, as messages name them.

    Raises:
        MIAError: it fails on them or returns NaN.
    """
    features = features or records.features
    if features is None or records.images.dtype.kind != "f" or not np.isnan(records.images).any():
        return
    missing: NDArray[np.bool_] = np.isnan(records.images)
    rows = np.flatnonzero(missing.any(axis=1))
    if target.input_dtype == "int64":
        problem = "its embedding takes whole numbers"
    else:
        inputs = converted(records.rows(rows[:: max(1, len(rows) // SAMPLE)]), target.input_dtype).images
        try:
            with torch.inference_mode():
                logits = target.network(torch.from_numpy(np.ascontiguousarray(inputs)))
        except Exception as error:
            problem = first_line(error).rpartition(" failed: ")[2].partition(". ")[0]
        else:
            problem = "" if torch.isfinite(logits).all() else "it returns NaN"
    if not problem:
        return
    columns = [name for name, count in zip(features.names, missing.sum(axis=0), strict=True) if count]
    column = missing[:, features.names.index(columns[0])]
    raise MIAError(
        f"{records.source}: record {records.ids[np.argmax(column)]} has a missing value of {printable(columns[0], 40)} "
        f"({int(column.sum())} such records), which the target ({target.architecture}) does not take ({problem}); "
        f"{features.encode(columns)}"
    )


def probes(
    network: nn.Module, shape: tuple[int, ...] | None, channels: int, sample: NDArray[Any] | None
) -> Iterator[list[Tensor]]:
    """Yield batches of inputs to probe a network with: a sample of the records, or noise of each usual shape.

    Args:
        network: The network.
        shape: Of one image, (C, H, W), where it is given.
        channels: Of the noise where it is not.
        sample: (N, ...) inputs of records that are not images.
    """
    dtype = input_dtype(network)
    if sample is not None:
        rows = sample if dtype == "stored" else sample.astype(dtype)
        yield [torch.from_numpy(np.ascontiguousarray(rows))]
        return
    features = getattr(getattr(unwrap(network), "estimator", None), "n_features_in_", None)
    shapes = [shape] if shape else [(features,)] if features else [(channels, side, side) for side in SIDES]
    for each in shapes:
        generator = torch.Generator().manual_seed(0)
        yield [torch.randn(8, *each, generator=generator) * scale for scale in (1.0, 0.3, 3.0, 100.0)]
