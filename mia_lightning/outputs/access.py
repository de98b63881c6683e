"""Levels of access to a target: its outputs reduced to what an attacker with less access sees.

The reduction needs no further query. What is withheld is replaced by a constant, so that every signal can be computed
at every level.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.targets.base import OutputKind

Access = Literal[
    "label", "top1", "topk", "probabilities_2", "probabilities_4", "probabilities", "logits", "features", "references"
]
"""Level of access, least first. Each includes the class labels of the records."""

LEVELS: tuple[Access, ...] = get_args(Access)

TOP = 5
"""Classes whose probabilities are seen at the level topk, at most all but one."""

FLOOR = float(np.log(np.finfo(np.float32).tiny))
"""Logarithm of a probability of 0, as of every target that returns probabilities."""

ROWS = 2**22
"""Logits per block."""

Array = NDArray[np.float32]

DESCRIPTIONS: dict[Access, str] = {
    "label": "the predicted label",
    "top1": "the predicted label and its probability",
    "topk": f"the {TOP} largest probabilities",
    "probabilities_2": "all probabilities, rounded to 2 decimals",
    "probabilities_4": "all probabilities, rounded to 4 decimals",
    "probabilities": "all probabilities in full",
    "logits": "the logits",
    "features": "the logits and the penultimate features",
    "references": "logits, features and reference models",
}


def highest_access(kind: OutputKind, outputs: Outputs) -> Access:
    """Return the highest level below features that the target's own outputs have.

    Args:
        kind: Output of the target before it was converted into logits.
        outputs: Its outputs as logits.
    """
    if kind in ("logits", "one_logit"):
        return "logits"
    return "label" if shows_labels_alone(outputs) else "probabilities"


def shows_labels_alone(outputs: Outputs) -> bool:
    """Whether all probabilities are exactly 0 or 1."""
    logits = outputs.logits[:, 0]
    if outputs.is_multi_label:
        return len(np.unique(logits)) <= 2
    ranked = np.sort(logits, axis=1)
    return bool((ranked[:, :-1] <= ranked[:, -1:] + FLOOR + 1).all())


def restrict(outputs: Outputs, access: Access) -> Outputs:
    """Return the outputs as an attacker with this access sees them.

    At the level "references" they are unchanged; below "features" there are neither features nor gradients.

    Args:
        outputs: Of N records under Q queries.
        access: The level.
    """
    if access == "references":
        return outputs
    empty = np.zeros((len(outputs.labels), 0), np.float32)
    outputs = replace(outputs, gradient_norms=empty)
    if access == "features":
        return outputs
    if access in ("top1", "topk") and outputs.is_multi_label:
        raise MIAError(
            f"--access {access} does not apply to a multi-label target, whose labels do not compete; use "
            "probabilities, or label"
        )
    is_full = access == "logits"
    logits = outputs.logits if is_full else reduce_logits(outputs.logits, access, outputs.is_multi_label)
    return replace(outputs, logits=logits, features=empty)


def reduce_logits(logits: Array, access: Access, multi_label: bool = False) -> Array:
    """Return log-probabilities (N, Q, C) of what is seen of logits (N, Q, C), or log-odds for multi-label targets.

    Raises:
        MIAError: a level above "probabilities".
    """
    if LEVELS.index(access) > LEVELS.index("probabilities"):
        raise MIAError(f"access {access!r} does not reduce logits; choose a level up to probabilities")
    result = np.empty(logits.shape, np.float32)
    for rows in _blocks(logits):
        block = np.asarray(logits[rows], np.float32)
        if multi_label:
            result[rows] = _log_odds(block, access)
            continue
        shifted = block - block.max(axis=-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        result[rows] = _reduced(log_p, access)
    return result


def _log_odds(logits: Array, access: Access) -> Array:
    """Return log-odds of C labels, each by itself."""
    if access == "label":
        return np.where(logits > 0, np.float32(-FLOOR), np.float32(FLOOR))
    if not access.startswith("probabilities_"):
        return logits
    unit = 10.0 ** -int(access.removeprefix("probabilities_"))
    p = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    rounded = np.clip(np.round(p / unit) * unit, unit / 2, 1 - unit / 2)  # as 0 is at most half a unit
    return np.log(rounded / (1 - rounded)).astype(np.float32)


def _reduced(log_p: Array, access: Access) -> Array:
    classes = log_p.shape[-1]
    if access == "probabilities":
        return log_p
    if access == "label":
        predicted = log_p.argmax(axis=-1)[..., None]
        return np.where(np.arange(classes) == predicted, np.float32(0), np.float32(FLOOR))
    if access in ("top1", "topk"):
        count = 1 if access == "top1" else min(TOP, classes - 1)
        smallest = np.partition(log_p, classes - count, axis=-1)[..., classes - count, None]
        seen = log_p >= smallest
        mass = np.where(seen, np.exp(log_p), 0).sum(axis=-1, keepdims=True)
        unseen = np.maximum(classes - seen.sum(axis=-1, keepdims=True), 1)
        rest = np.log(np.maximum((1 - mass) / unseen, np.exp(np.float32(FLOOR))))
        return np.where(seen, log_p, rest).astype(np.float32)
    unit = 10.0 ** -int(access.removeprefix("probabilities_"))
    rounded = np.round(np.exp(log_p) / unit) * unit
    return np.log(np.clip(rounded, unit / 2, 1)).astype(np.float32)  # 0 is at most half a unit


def _blocks(logits: Array) -> Iterator[slice]:
    rows = max(1, ROWS // max(1, logits.shape[1] * logits.shape[2]))
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)
