"""Columns of the access ladder's learner: one set for every level of access."""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.outputs.access import Access, reduce_logits
from mia_lightning.outputs.outputs import Outputs

CANONICAL = 16
"""Largest logits besides the label's that the learner reads."""

ROWS = 2**22
"""Logits per block."""

Columns = dict[str, NDArray[np.floating]]


def access_columns(outputs: Outputs, access: Access, queries: int) -> Columns:
    """Return the learner's columns of N records under the first queries, as far as this access shows them.

    phi (logit-scaled confidence) of the stored record, its mean, standard deviation, extremes and contrast over the
    views, correctness and stability of the predicted label, logsumexp, and the largest logits of the stored record and
    of the mean over the views, the label's first.

    Args:
        outputs: Of N records.
        access: A level up to "logits".
        queries: Number of views, or 1 for the stored record alone.
    """
    count, _, classes = outputs.logits.shape
    rows = max(1, ROWS // (queries * classes))
    parts = []
    for start in range(0, count, rows):
        part = slice(start, start + rows)
        seen = np.asarray(outputs.logits[part, :queries], np.float32)
        seen = seen if access == "logits" else reduce_logits(seen, access, outputs.is_multi_label)
        of_block = _of_multi_label if outputs.is_multi_label else _of_block
        parts.append(of_block(seen, outputs.labels[part]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of_block(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Columns:
    queries, classes = logits.shape[1:]
    predicted = logits.argmax(axis=-1)
    correct = predicted == labels[:, None]
    columns: Columns = {"is_correct": correct[:, 0].astype(np.float64)}
    is_label = np.arange(classes) == labels[:, None]
    label = np.take_along_axis(logits, labels[:, None, None], axis=-1)[..., 0]
    rest = np.where(is_label[:, None], np.float32(-np.inf), logits)
    top = rest.max(axis=-1, keepdims=True)
    phi = label - (top[..., 0] + np.log(np.exp(rest - top).sum(axis=-1)))
    columns["phi"] = phi[:, 0].astype(np.float64)
    largest = np.maximum(top[..., 0], label)
    total = largest + np.log(np.exp(logits - largest[..., None]).sum(axis=-1))
    columns["energy"] = total[:, 0].astype(np.float64)
    columns["ranked"] = _ranked(logits[:, 0], is_label)
    if queries > 1:
        columns |= _over_views(phi) | {
            "correct_mean": correct.mean(axis=1),
            "agreement": (predicted == predicted[:, :1]).mean(axis=1),
            "ranked_mean": _ranked(logits.mean(axis=1), is_label),
        }
    return columns


def _of_multi_label(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Columns:
    """Return the same of C labels: sums over the labels of signed log-odds and losses, and the smallest log-odds."""
    signed = np.where(labels[:, None] == 1, logits, -logits)
    columns: Columns = {
        "is_correct": (signed[:, 0] > 0).mean(axis=-1),
        "phi": signed[:, 0].sum(axis=-1, dtype=np.float64),
        "loss": np.logaddexp(0, -signed[:, 0]).sum(axis=-1, dtype=np.float64),
        "ranked": np.sort(signed[:, 0], axis=-1)[:, :CANONICAL],
    }
    if logits.shape[1] > 1:
        columns |= _over_views(signed.sum(axis=-1)) | {
            "correct_mean": (signed > 0).mean(axis=(1, 2)),
            "agreement": ((logits > 0) == (logits[:, :1] > 0)).mean(axis=(1, 2)),
            "ranked_mean": np.sort(signed.mean(axis=1), axis=-1)[:, :CANONICAL],
        }
    return columns


def _over_views(phi: NDArray[np.float32]) -> Columns:
    """Return statistics of phi (N, Q) over the views, Q at least 2."""
    mean, queries = phi.mean(axis=1, dtype=np.float64), phi.shape[1]
    unshifted = np.isin(np.arange(queries), (0, queries // 2))
    shifted = phi[:, ~unshifted].mean(axis=1, dtype=np.float64) if queries > 2 else phi[:, 1].astype(np.float64)
    return {
        "phi_mean": mean,
        "phi_std": phi.std(axis=1, dtype=np.float64),
        "phi_min": phi.min(axis=1).astype(np.float64),
        "phi_max": phi.max(axis=1).astype(np.float64),
        "phi_contrast": phi[:, unshifted].mean(axis=1, dtype=np.float64) - shifted,
    }


def _ranked(logits: NDArray[np.float32], is_label: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the label's logit, then the largest others in descending order, centered by the mean over the classes."""
    centered = logits - logits.mean(axis=1, keepdims=True)
    rest = -np.sort(np.where(is_label, np.float32(np.inf), -centered), axis=1)[:, :-1]
    return np.concatenate([centered[is_label][:, None], rest[:, :CANONICAL]], axis=1)
