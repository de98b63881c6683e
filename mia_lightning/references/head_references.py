"""References that are heads on the target's own fixed features: checked, trained at once and queried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from tempfile import TemporaryFile
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mia_lightning.errors import MIAError
from mia_lightning.outputs.fuse import prepare_for_inference
from mia_lightning.outputs.views import views
from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.stacked_heads import StackedHeads, fit, head_labels
from mia_lightning.references.store import ReferenceRecord
from mia_lightning.references.training_data import Normalize, TrainingData, image_batches, on_device
from mia_lightning.references.workers import Progress, ReferenceJob
from mia_lightning.runtime.device_copies import HostCopies
from mia_lightning.runtime.trainers import isolated_fabric
from mia_lightning.targets.base import Target
from mia_lightning.targets.features import FeatureTap, ends_with_head

OPTION = "--references.training.class_path head"

COLUMNS = 4096
"""Logits of all heads per record that are trained at once; more heads follow in further groups."""


def check_heads(
    config: ReferencesConfig, training: ReferenceTraining, target: Target, sample: Tensor, *, multi_label: bool = False
) -> None:
    """Check that heads can be trained on the target's features.

    Args:
        config: Options of the references.
        training: From `resolved_training`.
        target: The target.
        sample: A few inputs (B, ...) of its network.
        multi_label: Whether each output is that of an independent label.

    Raises:
        MIAError: an option that heads do not have, or a target that does not end with a linear layer.
    """
    if config.architecture:
        raise MIAError(f"{OPTION} trains heads of the target; leave --references.architecture out")
    if config.workers:
        raise MIAError(f"{OPTION} trains all heads at once in this process; leave --references.workers at 0")
    if training.shift:
        raise MIAError(
            f"{OPTION} computes the features of stored and mirrored images alone; leave --references.training.shift "
            "at 0, or train all layers (--references.training.class_path built_in)"
        )
    head_of(target)
    order = target.form.class_order
    if not ends_with_head(target.network, target.feature_layer, order, sample, multi_label=multi_label):
        raise MIAError(
            f"{OPTION}: the target's class scores are not those of its last linear layer ({target.feature_layer}); "
            "train all layers (--references.training.class_path built_in)"
        )


def head_of(target: Target) -> nn.Linear:
    """Return the target's last linear layer.

    Raises:
        MIAError: the target has none, or one whose features vary with the position.
    """
    layer = dict(target.network.named_modules()).get(target.feature_layer or "")
    if not isinstance(layer, nn.Linear):
        raise MIAError(
            f"{OPTION} needs a network whose last layer is linear, but none was found in the target; name it by "
            "--target.feature_layer, or train all layers (--references.training.class_path built_in)"
        )
    return layer


def fresh_head(layer: nn.Linear, seed: int) -> nn.Linear:
    """Return an untrained layer of the same shape with PyTorch's first weights; the global random state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)


def head_factory(target: Target) -> Callable[[int], nn.Linear]:
    """Return what makes an untrained head of the target from a seed. Raises MIAError: see `head_of`."""
    return partial(fresh_head, head_of(target))


def train_heads(
    jobs: Sequence[ReferenceJob], material: TrainingData, target: Target, recipe: ReferenceTraining, *, seed: int
) -> None:
    """Train the heads that have no stored weights, query all of them, and finish their references in the store.

    The features of the training views are computed once, those of further queries in one pass for all heads.

    Args:
        jobs: With `network` from `head_factory`.
        material: The records.
        target: Its features are computed.
        recipe: Training recipe of the heads.
        seed: Drives the order of the records and their mirroring, which all heads share.
    """
    if not jobs:
        return
    device = isolated_fabric(jobs[0].device).device
    backbone = _Backbone(target, material, device)
    training = backbone.training_features(recipe)
    heads: dict[int, nn.Linear] = {}
    rows: dict[int, ReferenceRecord] = {}
    with Progress(len(jobs), recipe.counts()[0]) as progress:
        missing = []
        for job in jobs:
            head = job.network(job.seed)
            assert isinstance(head, nn.Linear)
            heads[job.number] = head
            if (state := job.store.load_weights(job.number, head.state_dict())) is None:
                missing.append(job)
            else:
                head.load_state_dict(state)
        size = max(1, COLUMNS // target.num_classes)
        for group in (missing[start : start + size] for start in range(0, len(missing), size)):
            started = perf_counter()
            stack = StackedHeads([heads[job.number] for job in group])
            keep = torch.from_numpy(np.stack([job.keep for job in group]))
            fit(stack, training, material, keep, recipe, seed=seed, device=jobs[0].device, on_epoch=progress.epoch)
            for index, job in enumerate(group):
                seconds = (perf_counter() - started) / len(group)
                rows[job.number] = ReferenceRecord(job.number, "trained", seconds=seconds)
                state = stack.state_of(index)
                heads[job.number].load_state_dict(state)
                if all(bool(tensor.isfinite().all()) for tensor in state.values()):
                    job.store.save_weights(job.number, state)
            progress.done += len(group)
        progress.done = 0
        for job, (row, phi) in _queried(jobs, backbone, material, heads, rows):
            job.store.finish(row, phi)
            progress.finished(row)


class _Backbone:
    """Features of all records under every view, on a device."""

    def __init__(self, target: Target, material: TrainingData, device: torch.device) -> None:
        self.images, _ = on_device(material, device)
        self.normalize = Normalize(material, self.images)
        self.device, self.queries, self.own_views = device, material.queries, material.views
        self.is_image = len(self.images.shape) == 4
        self.batch_size = min(len(self.images), 256 if device.type == "cpu" else 4096)
        network = target.network
        if self.is_image and target.deterministic:
            network = prepare_for_inference(network.cpu(), self.normalize(self.images[:8]).cpu())
        self.network = FeatureTap(network, target.feature_layer).eval().to(device)
        self.stored: dict[int, Tensor] = {}

    @torch.no_grad()
    def training_features(self, recipe: ReferenceTraining) -> Tensor:
        """Return features (V, N, D) of the stored images and, where the recipe mirrors them, their mirror images."""
        is_mirrored = self.is_image and recipe.flip
        parts = []
        for part, batch in self._batches():
            pair = (batch, batch.flip(-1)) if is_mirrored else (batch,)
            parts.append(torch.stack([self.features(view)[: part.stop - part.start] for view in pair]))
        features = torch.cat(parts, dim=1)
        self.stored = {0: features[0]}
        if is_mirrored and self.queries > 1 and self.own_views is None:
            self.stored[self.queries // 2] = features[1]  # the first mirrored view is not shifted
        return features

    @torch.no_grad()
    def queried(self) -> Iterator[tuple[slice, Iterator[Tensor]]]:
        """Yield blocks of records with their features (B, D) under each view."""
        if set(self.stored) == set(range(self.queries)):
            for start in range(0, len(self.images), self.batch_size):
                part = slice(start, min(start + self.batch_size, len(self.images)))
                yield part, iter([self.stored[query][part] for query in range(self.queries)])
            return
        for part, batch in self._batches():
            yield part, self._views(part, batch)

    def _views(self, part: slice, batch: Tensor) -> Iterator[Tensor]:
        for query, view in enumerate(views(batch, self.queries, self.own_views)):
            if query in self.stored:
                yield self.stored[query][part]
            else:
                yield self.features(view)[: part.stop - part.start]

    def _batches(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield normalized batches of one size, padded so that features do not depend on a batch's other records."""
        count, size = len(self.images), self.batch_size
        padded = torch.arange(-(-count // size) * size).clamp(max=count - 1)
        for number, stored in enumerate(image_batches(self.images, padded, size)):
            yield slice(number * size, min((number + 1) * size, count)), self.normalize(stored)

    def features(self, batch: Tensor) -> Tensor:
        """Return float32 features of normalized images, (B, D)."""
        features: Tensor = self.network(batch)[1]
        return features.float()


@torch.no_grad()
def _queried(
    jobs: Sequence[ReferenceJob],
    backbone: _Backbone,
    material: TrainingData,
    heads: dict[int, nn.Linear],
    rows: dict[int, ReferenceRecord],
) -> Iterator[tuple[ReferenceJob, tuple[ReferenceRecord, NDArray[np.float32] | None]]]:
    """Yield each job with its reference's description and phi, computed for all heads block by block."""
    size = max(1, COLUMNS // heads[jobs[0].number].out_features)
    groups = [range(start, min(start + size, len(jobs))) for start in range(0, len(jobs), size)]
    stacks = [StackedHeads([heads[jobs[i].number] for i in group]).to(backbone.device) for group in groups]
    labels = head_labels(material, heads[jobs[0].number].out_features).to(backbone.device)
    count = len(labels)
    with TemporaryFile(dir=jobs[0].store.folder) as file:
        values = np.memmap(file, np.float32, mode="w+", shape=(len(jobs), count, material.queries))
        correct = np.empty((len(jobs), count), bool)
        copies: HostCopies[slice] = HostCopies(ahead=1)  # a block arrives while the next one is computed

        def store(arrived: Iterable[tuple[slice, dict[str, Any]]]) -> None:
            for part, arrays in arrived:
                values[:, part], correct[:, part] = arrays["phi"], arrays["correct"]

        for part, features in backbone.queried():
            label = labels[part]
            block = {
                "phi": torch.empty(len(jobs), len(label), material.queries, device=backbone.device),
                "correct": torch.empty(len(jobs), len(label), dtype=torch.bool, device=backbone.device),
            }
            each = torch.arange(len(label), device=backbone.device)
            for query, view in enumerate(features):
                for group, stack in zip(groups, stacks, strict=True):
                    logits = stack(view) / material.temperature
                    if label.ndim == 2:
                        signed = torch.where(label[..., None] == 1, logits, -logits)
                        is_right, score = (signed > 0).all(dim=1), signed.sum(dim=1)
                    else:
                        is_right, of_label = logits.argmax(dim=1) == label[:, None], logits[each, label]
                        logits[each, label] = -torch.inf
                        score = of_label - logits.logsumexp(dim=1)
                    if query == 0:
                        block["correct"][group.start : group.stop] = is_right.T
                    block["phi"][group.start : group.stop, :, query] = score.T
            store(copies.add(part, block))
        store(copies.rest())
        for index, job in enumerate(jobs):
            row = rows.get(job.number, ReferenceRecord(job.number, "trained"))
            phi = np.array(values[index])
            if not np.isfinite(phi).all():
                yield (
                    job,
                    (ReferenceRecord(job.number, "diverged", 0, 0, row.seconds, "its loss became infinite"), None),
                )
                continue
            in_, out_ = (float(correct[index, part].mean()) if part.any() else 0.0 for part in (job.keep, ~job.keep))
            yield job, (ReferenceRecord(job.number, "trained", in_, out_, row.seconds), phi)
