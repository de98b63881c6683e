"""Query of one model for phi on every record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mia_lightning.outputs.fuse import prepare_for_inference
from mia_lightning.outputs.phi import is_correct, phi
from mia_lightning.outputs.views import views
from mia_lightning.references.training_data import Normalize, TrainingData, image_batches
from mia_lightning.references.training_step import DeviceSession
from mia_lightning.runtime.trainers import isolated_fabric


@dataclass(frozen=True, eq=False)
class PhiResult:
    """Outputs of one model for all records."""

    phi: NDArray[np.float32]
    """(N, Q)."""

    correct: NDArray[np.bool_]
    """(N,) whether the class of the stored image, or each of its labels, is predicted correctly."""


@torch.inference_mode()
def compute_phi(
    network: nn.Module, material: TrainingData, *, device: str, session: DeviceSession | None = None
) -> PhiResult:
    """Query a model on every record, in float32 regardless of its training precision.

    Batches are padded to one size, so that phi of a record does not depend on the others of its batch.

    Args:
        network: The model.
        material: The records.
        device: "cpu" or "cuda".
        session: Shared by the models of a run.
    """
    where = isolated_fabric(device).device
    images, labels = (session or DeviceSession(material)).resident(where)
    batch_size = 256 if where.type == "cpu" else 4096
    normalize = Normalize(material, images)
    fast = prepare_for_inference(network.eval().cpu(), normalize(images[:8]).cpu()).to(where)
    values = torch.empty(len(images), material.queries, device=where)
    correct = torch.empty(len(images), dtype=torch.bool, device=where)
    padded = torch.arange(-(-len(images) // batch_size) * batch_size).clamp(max=len(images) - 1)
    rows = padded.to(where)
    for number, stored in enumerate(image_batches(images, padded, batch_size)):
        start = number * batch_size
        count = min(batch_size, len(images) - start)
        given = labels[rows[start : start + batch_size]]
        batch = normalize(stored)
        if batch.ndim == 4:
            batch = batch.contiguous(memory_format=torch.channels_last)
        for query, view in enumerate(views(batch, material.queries, material.views)):
            logits = fast(view).float() / material.temperature
            values[start : start + count, query] = phi(logits, given)[:count]
            if query == 0:
                correct[start : start + count] = is_correct(logits, given)[:count]
    return PhiResult(values.cpu().numpy(), correct.cpu().numpy())
