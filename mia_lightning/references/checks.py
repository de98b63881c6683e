"""Checks of the references' options before any work: architecture, views, numbers of references, files."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.records.multi_hot import label_array
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.references.columns import reference_columns
from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.exchange import is_checkpoint_folder, load_reference_outputs
from mia_lightning.references.exchange.checkpoints import read_checkpoint_folder
from mia_lightning.references.fitting import try_training
from mia_lightning.references.head_references import check_heads
from mia_lightning.references.independence import make_independent
from mia_lightning.references.networks import network_of
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.phi import view_columns
from mia_lightning.references.splits import assign, content_order
from mia_lightning.references.training_data import ImageParts, TrainingData
from mia_lightning.references.user_training import OPTION as TRAINING_OPTION
from mia_lightning.references.user_training import resolved_training, trainer_code
from mia_lightning.references.workers import device_of
from mia_lightning.runtime.ray_cluster import check_address
from mia_lightning.targets.base import Target
from mia_lightning.targets.estimators import EstimatorNetwork
from mia_lightning.targets.wrapper import unwrap

SAMPLE = 64
"""Records on which every score is tried."""


def check_references(
    config: ReferencesConfig,
    *,
    target: Target,
    public: Records,
    private: Records | None,
    extraction_queries: int,
    seed: int,
    ray_address: str | None = None,
) -> None:
    """Try everything about references that can fail without a query of the target.

    Each score is computed once, from simulated phi of those records that will have the fewest references IN or OUT.

    Args:
        config: Options of the references.
        target: The loaded target.
        public: Records of known membership.
        private: Records of unknown membership, or None.
        extraction_queries: Views per record of the target.
        seed: The run's.
        ray_address: Of a running Ray cluster, checked where references are trained by Ray.

    Raises:
        MIAError: an option that cannot work, by its name.
    """
    if not config.wanted:
        return
    membership = np.append(public.membership, np.full(0 if private is None else len(private), UNKNOWN, np.int8))
    queries = config.queries or extraction_queries
    view_columns(extraction_queries, queries)
    order = content_order(public, private)
    if config.imported is None:
        if config.workers and ray_address is not None:
            check_address(ray_address, option="--ray.address")
        assignment = assign(
            config.scheme,
            config.count,
            membership,
            private=len(membership) - len(public),
            seed=seed,
            released=config.anchored_release,
            order=order,
        )
        _check_training(config, target, public, assignment.keep)
        keep, drawn = assignment.keep, assignment.drawn
    elif is_checkpoint_folder(config.imported):
        keep, drawn = read_checkpoint_folder(config.imported, records=len(membership)).keep, None
    else:
        if public.multi_hot is not None:
            raise MIAError(
                f"--references.imported {config.imported}: stored outputs are read for one class per record, but the "
                "records have several labels; import a folder of checkpoints, or train references"
            )
        labels = np.append(public.labels, [] if private is None else private.labels).astype(np.int64)
        imported = _imported(config, config.imported, labels, queries)
        independent = make_independent(imported, membership, seed=seed, source=config.imported, order=order)
        imported = independent.reference_outputs
        keep, drawn, queries = imported.keep, imported.drawn, imported.references.shape[2]
    reference_columns(config.scores, _simulated(keep, drawn, queries, seed))
    if config.exported is not None and not Path(config.exported).absolute().parent.is_dir():
        raise MIAError(f"--references.exported {config.exported}: its folder does not exist; create it")


def _imported(config: ReferencesConfig, source: str, labels: NDArray[np.int64], queries: int) -> ReferenceOutputs:
    """Return imported phi, and zeros in place of that of the target, which has not been queried."""
    return load_reference_outputs(
        source,
        labels=None,
        num_classes=2,
        records=len(labels),
        target=np.zeros((len(labels), queries), np.float32),
        run_labels=labels,
        labels_file=config.labels,
    )


def _check_training(config: ReferencesConfig, target: Target, public: Records, keep: NDArray[np.bool_]) -> None:
    """Check that references can be trained: the code, the network, the batches, one step."""
    training = resolved_training(config, target)
    independent = [name for name, score in config.scores.items() if score.independent_references]
    if training.start == "target" and independent:
        name = independent[0]
        raise MIAError(
            "--references.training.start target fine-tunes copies of the target, but --references.scores."
            f"{name} ({type(config.scores[name]).__name__}) is defined for reference models independent of it; use "
            "PerReferenceDifference or DifficultyCalibration"
        )
    trainer_code(training)
    if training.is_head:
        check_heads(config, training, target, _sample(public), multi_label=public.multi_hot is not None)
    network = None if training.is_head else _check_architecture(config, training, target)
    if not isinstance(unwrap(target.network), EstimatorNetwork):
        _check_batches(training, keep)
    if not training.is_built_in and network is not None:
        _try_training(config, training, network, public, target.num_classes)


def _check_architecture(config: ReferencesConfig, training: ReferenceTraining, target: Target) -> nn.Module:
    """Return an untrained network."""
    try:
        return network_of(config, target)(0)
    except MIAError as error:
        if not training.is_built_in:
            raise MIAError(str(error).replace("--target.architecture", TRAINING_OPTION)) from error
        option = "--references.architecture"
        if config.architecture is None:
            hint = "" if option in str(error) else f"; name the references' network by {option} package.module:Class"
            raise MIAError(f"references cannot be trained from the target's architecture: {error}{hint}") from error
        message = str(error).replace("--target.architecture", option)
        raise MIAError(f"{option} {config.architecture}: {message}") from error


def _sample(public: Records) -> torch.Tensor:
    """Return a few inputs of the target's network: noise in place of images, which are not normalized here."""
    if public.is_image:
        return torch.randn(8, *public.images.shape[1:], generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(np.ascontiguousarray(public.images[:8]))


def _try_training(
    config: ReferencesConfig, training: ReferenceTraining, network: nn.Module, public: Records, classes: int
) -> None:
    """Train one batch of public records by the user's LightningModule."""
    _, count = training.counts()
    rows = np.arange(count) % len(public)
    labels = np.maximum(label_array(public)[rows], 0)
    channels = public.images.shape[1] if public.images.ndim == 4 else 0  # other records are not normalized
    material = TrainingData(
        ImageParts((public.images,))[rows], labels, (0.5,) * channels, (0.25,) * channels, classes, queries=1
    )
    try_training(network, material, training, config.trainer, device=device_of(config))


def _check_batches(training: ReferenceTraining, keep: NDArray[np.bool_]) -> None:
    _, batch_size = training.counts()
    if (fewest := int(keep.sum(axis=1).min())) < batch_size:
        raise MIAError(
            f"a reference has {fewest} records to train on, fewer than one batch of {batch_size}; "
            "lower --references.training.batch_size"
        )


def _simulated(keep: NDArray[np.bool_], drawn: NDArray[np.bool_] | None, queries: int, seed: int) -> ReferenceOutputs:
    """Return simulated phi of the records with the fewest references IN, with the fewest OUT, and of some others."""
    drawn = np.ones_like(keep) if drawn is None else drawn
    n_in, n_out = (keep & drawn).sum(axis=0), (~keep & drawn).sum(axis=0)
    rows = np.unique(np.concatenate([*(np.argsort(n, kind="stable")[:8] for n in (n_in, n_out)), np.arange(SAMPLE)]))
    rows = rows[rows < keep.shape[1]]
    draw = np.random.default_rng(seed)
    keep, drawn = keep[:, rows], drawn[:, rows]
    phi = draw.normal(size=(len(keep), len(rows), queries)) + keep[..., None]
    target = draw.normal(size=(len(rows), queries))
    labels = np.zeros(len(rows), np.int64)
    return ReferenceOutputs(target.astype(np.float32), phi.astype(np.float32), keep, labels, 2, drawn)
