"""Pool of models: phi and training records of K models, computed elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.records.vocabulary import NAMES, normalize_name
from mia_lightning.references.exchange.conversion import FORMS, to_phi

Arrays = Mapping[str, NDArray[Any]]

ROLES: Mapping[str, tuple[str, ...]] = {
    "phi": ("phi", "phis", "scores", "score"),
    "logits": ("logits", "logit"),
    "probabilities": ("probabilities", "probability", "probs", "prob", "softmax", "confidences", "confidence"),
    "losses": ("losses", "loss"),
    "keep": ("keep", "keeps", "keep_matrix", "keep_indices", "membership_matrix", "memberships"),
    "drawn": ("drawn",),
    "target": ("target", "target_phi", "target_scores"),
    "target_logits": ("target_logits",),
    "target_probabilities": ("target_probabilities", "target_probs", "target_softmax"),
    "membership": tuple(name for name in NAMES["membership"] if name != "memberships"),
    "labels": ("labels", "label", "y", "y_train", "classes", "class", "targets", "true_labels", "y_true"),
    "ids": NAMES["id"],
}
"""Role of an array to the names that it is recognized by."""


@dataclass(frozen=True, eq=False)
class Pool:
    """phi of K models on N records under Q views, their training records, and any targets that came with them."""

    phi: NDArray[np.float32]
    """(K, N, Q)."""

    keep: NDArray[np.bool_]
    """(K, N) True where the model was trained on the record."""

    source: str
    """Name for messages."""

    targets: NDArray[np.float32] | None = None
    """(T, N, Q) phi of the targets; None where the source has none."""

    membership: NDArray[np.int8] | None = None
    """(T, N) 1, 0 or -1 = unknown; None where the source has none."""

    labels: NDArray[np.int64] | None = None
    """(N,) class indices."""

    drawn: NDArray[np.bool_] | None = None
    """(K, N), see `ReferenceOutputs`."""

    ids: NDArray[Any] | None = None
    """(N,) unique."""

    logits: NDArray[np.float32] | None = None
    """(N, Q, C) of a single target, where the source has logits or the probabilities of all classes."""

    notes: tuple[str, ...] = field(default=())
    """Ambiguities and how they were resolved."""


def role_of(name: str) -> str | None:
    """Return the role of an array by its name, or None."""
    normal = normalize_name(name)
    return next((role for role, names in ROLES.items() if normal in names), None)


def pool_of(arrays: Arrays, source: str, *, notes: tuple[str, ...] = ()) -> Pool:
    """Return the pool of arrays by role (see `ROLES`); records and models may be on either of the first two axes.

    Raises:
        MIAError: a missing array, shapes that do not fit, values that are not finite, logits without labels.
    """
    form = next((name for name in FORMS if name in arrays), None)
    if form is None or "keep" not in arrays:
        missing = "'phi' (or logits, probabilities)" if form is None else "'keep'"
        raise MIAError(
            f"{source}: has no array {missing}; expected phi (K, N, Q) and keep (K, N) of K models and N records, "
            "and of the target: target (N, Q) and membership (N,)"
        )
    labels = _labels(arrays, source)
    values, keep = _oriented(np.asarray(arrays[form]), np.asarray(arrays["keep"]), _records(arrays), source)
    if not np.isin(keep, (0, 1)).all():
        raise MIAError(f"{source}: keep holds {keep[~np.isin(keep, (0, 1))][0]}; expected only 0 and 1")
    noted = list(notes)
    phi = to_phi(values, form, labels, f"{source}: {form}", noted)
    targets, logits = _targets(arrays, form, values, labels, source, noted)
    count = keep.shape[1]
    membership = _membership(arrays, count, source)
    expected = (targets.shape[0] if targets is not None else 1, count)
    if targets is not None and targets.shape[1:] != phi.shape[1:]:
        raise MIAError(
            f"{source}: target is {targets.shape[1:]}; expected {phi.shape[1:]}, the records and views of {form}"
        )
    if membership is not None and targets is not None and membership.shape != expected:
        raise MIAError(f"{source}: membership is {membership.shape}; expected {expected}, as the target")
    drawn = _drawn(arrays, keep, source)
    ids = np.asarray(arrays["ids"]).reshape(-1) if "ids" in arrays else None
    for name, column in (("labels", labels), ("ids", ids)):
        if column is not None and len(column) != count:
            raise MIAError(f"{source}: there are {len(column)} {name} for {count} records; give one per record")
    if ids is not None and len(np.unique(ids)) != count:
        raise MIAError(f"{source}: ids occur more than once; ids must be unique")
    return Pool(phi, keep.astype(bool), source, targets, membership, labels, drawn, ids, logits, tuple(noted))


def _records(arrays: Arrays) -> int | None:
    """Return N where an array of one value per record gives it."""
    for name in ("labels", "ids", "membership"):
        if name in arrays:
            return int(np.asarray(arrays[name]).shape[-1 if name == "membership" else 0])
    return None


def _labels(arrays: Arrays, source: str) -> NDArray[np.int64] | None:
    if "labels" not in arrays:
        return None
    labels = np.asarray(arrays["labels"])
    labels = labels.argmax(axis=1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)
    if not np.issubdtype(labels.dtype, np.number) or (labels != np.round(labels)).any() or (labels < 0).any():
        raise MIAError(f"{source}: labels must be class indices 0, 1, ...; found {labels.dtype}, first {labels[0]}")
    return labels.astype(np.int64)


def _oriented(
    values: NDArray[Any], keep: NDArray[Any], records: int | None, source: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return values (K, N, ...) and keep (K, N) of arrays whose first two axes may be swapped."""
    if keep.ndim == 1:  # one model
        keep, values = keep[None], values[None] if values.shape[:1] == keep.shape else values
    if keep.ndim != 2 or values.ndim < 2 or {*values.shape[:2]} != {*keep.shape}:
        raise MIAError(
            f"{source}: keep is {keep.shape} and the models' outputs are {values.shape}; expected (K, N) and "
            "(K, N, ...) for K models and N records"
        )
    if records is None:
        records = max(keep.shape) if values.shape[:2] != keep.shape or keep.shape[0] > keep.shape[1] else keep.shape[1]
    if records not in keep.shape:
        raise MIAError(f"{source}: keep is {keep.shape}, but labels, ids or membership are of {records} records")
    keep = keep if keep.shape[1] == records else keep.T
    return values if values.shape[1] == records else values.swapaxes(0, 1), keep


def _targets(
    arrays: Arrays, form: str, values: NDArray[Any], labels: NDArray[np.int64] | None, source: str, notes: list[str]
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Return phi of the targets (T, N, Q), and the logits (N, Q, C) of a single one if there are any."""
    name = next((name for name in ("target_logits", "target_probabilities", "target") if name in arrays), None)
    if name is None:
        return None, None
    target = np.asarray(arrays[name])
    if name != "target":
        form = name.removeprefix("target_")
    elif target.ndim < values.ndim - 1:  # phi next to logits of the references
        form = "phi"
    count = values.shape[1]
    if target.shape[:1] == (count,) and not (target.ndim > 1 and target.shape[1] == count):
        target = target[None]
    if target.ndim < 2 or target.shape[1] != count:
        raise MIAError(f"{source}: {name} is {target.shape}; expected one row for each of the {count} records")
    phi = to_phi(target, form, labels, f"{source}: {name}", notes)
    if len(target) > 1 or form not in ("logits", "probabilities") or target.ndim < 3:
        return phi, None
    logits = target[0] if target.ndim == 4 else target[0][:, None]
    if form == "probabilities":
        of_views = logits.shape[-1] == phi.shape[-1] and target.ndim == 3
        if of_views and not np.allclose(logits.sum(axis=-1), 1, atol=0.02):
            return phi, None  # probabilities of the true class under several views
        logits = np.log(np.maximum(logits, np.finfo(np.float32).tiny))
    return phi, logits.astype(np.float32)


def _membership(arrays: Arrays, count: int, source: str) -> NDArray[np.int8] | None:
    if "membership" not in arrays:
        return None
    membership = np.asarray(arrays["membership"])
    membership = membership[None] if membership.ndim == 1 else membership
    if membership.ndim != 2 or membership.shape[1] != count or not np.isin(membership, (-1, 0, 1)).all():
        raise MIAError(f"{source}: membership is {membership.shape}; expected 1, 0 or -1 for each of {count} records")
    return membership.astype(np.int8)


def _drawn(arrays: Arrays, keep: NDArray[Any], source: str) -> NDArray[np.bool_] | None:
    if "drawn" not in arrays:
        return None
    drawn = np.asarray(arrays["drawn"])
    drawn = drawn.T if drawn.shape == keep.shape[::-1] and drawn.shape != keep.shape else drawn
    if drawn.shape != keep.shape or not np.isin(drawn, (0, 1)).all():
        raise MIAError(f"{source}: drawn is {drawn.shape}; expected 0 and 1 in the shape of keep, {keep.shape}")
    return None if drawn.all() else drawn.astype(bool)
