"""Computation of the signal table from a target's outputs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.signals._registry import expand_names, get_signal, is_preset
from mia_lightning.signals.base import Need, Signal
from mia_lightning.signals.table import SignalTable

QueryReduction = Literal["mean", "first", "none"]

BLOCK = 2**20
"""Logits per block: 8 MiB in float64, which stay in the processor's cache over the passes of a signal."""

LARGEST = float(np.finfo(np.float32).max)
"""Attacks read columns as float32."""


def build_table(outputs: Outputs, *, names: Sequence[str], query_reduction: QueryReduction = "mean") -> SignalTable:
    """Compute signals, one column each.

    Args:
        outputs: N records under Q queries.
        names: Signals, presets, or package.module:function. A preset omits signals whose inputs
            (penultimate features, input gradients) the outputs lack; a signal named by itself is required.
        query_reduction: Reduction of per-query signals: their mean over the queries, the value of the stored
            image (first), or all values side by side (none).

    Returns:
        A table in the order of the names; columns of one value per record are float64, wider ones float32.

    Raises:
        MIAError: unknown name; outputs that a signal needs are missing; NaN, infinite or beyond float32's range.
    """
    if outputs.num_classes < 2:
        raise MIAError(
            "the target returns one value per record; signals need at least two classes (--target.output one_logit)"
        )
    signals = _available(outputs, names)
    blocks = list(_blocks(outputs))
    columns = {name: _column(name, signal, blocks, query_reduction) for name, signal in signals.items()}
    return SignalTable(columns=columns, labels=outputs.class_indices, num_classes=outputs.num_classes)


def _available(outputs: Outputs, names: Sequence[str]) -> dict[str, Signal]:
    signals = {name: get_signal(name) for name in expand_names(names)}
    required = {name for name in names if not is_preset(name)}
    for name, signal in list(signals.items()):
        if outputs.is_multi_label and not signal.multi_label:
            if name in required:
                raise MIAError(
                    f"signal {name!r} is not defined for multi-label targets; remove it from --signals.names"
                )
            del signals[name]
            continue
        if signal.needs is not None and getattr(outputs, signal.needs).shape[1] == 0:
            if name in required:
                raise MIAError(f"signal {name!r} {_remedy(signal.needs)}")
            del signals[name]
    return signals


def _remedy(need: Need) -> str:
    if need == "features":
        return "needs penultimate features, which the target lacks; name their layer with --target.feature_layer NAME"
    return "needs input gradients, which were not computed; add --extraction.gradients true"


def _blocks(outputs: Outputs) -> Iterator[Outputs]:
    """Yield the outputs in blocks of rows, at least one."""
    count, queries, classes = outputs.logits.shape
    rows = max(1, BLOCK // (queries * classes))
    for start in range(0, max(count, 1), rows):
        part = slice(start, start + rows)
        yield Outputs(
            logits=outputs.logits[part],
            features=outputs.features[part],
            gradient_norms=outputs.gradient_norms[part],
            labels=outputs.labels[part],
        )


def _column(name: str, signal: Signal, blocks: list[Outputs], query_reduction: QueryReduction) -> NDArray[np.floating]:
    return np.concatenate([_stored(name, _reduced(name, signal, block, query_reduction)) for block in blocks])


def _reduced(name: str, signal: Signal, outputs: Outputs, query_reduction: QueryReduction) -> NDArray[np.floating]:
    if signal.per_query and query_reduction == "first":
        outputs = replace(outputs, logits=outputs.logits[:, :1])
    values = np.asarray(signal(outputs))
    expected = outputs.logits.shape[:2] if signal.per_query else outputs.logits.shape[:1]
    if values.shape[: len(expected)] != expected or values.ndim > len(expected) + 1:
        raise MIAError(
            f"signal {name!r} returned shape {values.shape}; expected {expected}, or one more axis of values"
        )
    if not signal.per_query:
        return values
    if query_reduction == "none":
        return values[:, 0] if values.shape[1] == 1 else values.reshape(len(values), -1)
    return np.asarray(values.mean(axis=1, dtype=np.float64))


def _stored(name: str, values: NDArray[np.floating]) -> NDArray[np.floating]:
    usable = np.abs(values) <= LARGEST  # false for NaN
    if not usable.all():
        invalid = int((~usable.reshape(len(values), -1).all(axis=1)).sum())
        raise MIAError(
            f"signal {name!r} is NaN, infinite or beyond float32 in at least {invalid} of {len(values)} records; "
            "check the target's logits, or remove the signal from --signals.names"
        )
    return values.astype(np.float64 if values.ndim == 1 else np.float32)
