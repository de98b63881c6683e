"""References of a run: loaded from the store or an import, the missing ones trained."""

import logging
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.records.normalization import normalization
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.references.config import ReferencesConfig
from mia_lightning.references.exchange import save_reference_outputs
from mia_lightning.references.exchange.checkpoints import imported_outputs
from mia_lightning.references.fidelity import (
    agreement_check,
    coverage_check,
    direction_check,
    independence_check,
    order_check,
    rows_check,
    scale_check,
    training_checks,
)
from mia_lightning.references.head_references import head_factory, train_heads
from mia_lightning.references.independence import make_independent
from mia_lightning.references.networks import network_of
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.phi import target_phi
from mia_lightning.references.result import References
from mia_lightning.references.splits import Assignment, assign, content_order
from mia_lightning.references.store import ReferenceRecord, ReferenceStore
from mia_lightning.references.training import NUMBERS
from mia_lightning.references.training_data import ImageParts, TrainingData
from mia_lightning.references.user_training import resolved_training, training_inputs, untrainable_module
from mia_lightning.references.workers import Finished, ReferenceJob, device_of, train_references
from mia_lightning.runtime.store import array_digest, source_digest
from mia_lightning.targets.base import Target
from mia_lightning.targets.estimators import EstimatorNetwork
from mia_lightning.targets.imported import source_of
from mia_lightning.targets.wrapper import unwrap

log = logging.getLogger(__name__)

INFERENCE_CODE = ("references.inference", "references.training_data", "outputs.fuse", "outputs.views")
HEAD_CODE = ("references.head_references", "references.stacked_heads")
"""Modules whose source determines phi of given weights."""


@dataclass(frozen=True, eq=False)
class ReferenceInputs:
    """Records and the target's outputs for them."""

    public: Records
    private: Records | None
    target: Target
    outputs: Outputs
    """Of the public records."""

    private_outputs: Outputs | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    accuracy_on_members: float
    accuracy_on_non_members: float
    views: str | None = None
    on_reference: Finished | None = None


def load_or_train_references(
    config: ReferencesConfig,
    inputs: ReferenceInputs,
    *,
    store: Path,
    seed: int,
    ray_address: str | None = None,
    remote: str | None = None,
) -> References:
    """Return the references of a run, of which those missing in the store are trained; `remote`: see `RemoteFolder`.

    Raises:
        MIAError: an architecture that cannot be trained from scratch, too few references for the scheme, a full disk,
            or all references diverged.
    """
    queries = config.queries or inputs.outputs.logits.shape[1]
    own_views, halves = inputs.views is not None, _halves(inputs)
    target = np.concatenate([target_phi(half, queries, config.temperature, own_views) for half in halves])
    labels = np.concatenate([half.class_indices for half in halves])
    if config.imported is not None:
        imported = imported_outputs(
            config,
            labels,
            target,
            num_classes=inputs.target.num_classes,
            network=network_of(config, inputs.target),
            material=lambda: material_of(inputs, queries, temperature=config.temperature),
            device=device_of(config),
        )
        source = Path(config.imported).name
        return _exported(config, _checked_import(imported, inputs, target[:, 0], source=source, seed=seed))
    material = material_of(inputs, queries, temperature=config.temperature)
    private = 0 if inputs.private is None else len(inputs.private)
    unknown = np.full(private, UNKNOWN, np.int8)  # the private half's own membership stays out of reach
    membership = np.append(inputs.public.membership, unknown)
    assignment = assign(
        config.scheme,
        config.count,
        membership,
        private=private,
        seed=seed,
        released=config.anchored_release,
        order=material.order,
    )
    reference_store = _store(config, inputs, material, assignment, membership, store=store, seed=seed, remote=remote)
    with reference_store.lock().held("references"):  # two runs would train the same
        rows = _trained(config, inputs, material, assignment, reference_store, seed=seed, ray_address=ray_address)
    return _exported(config, _references(config, inputs, reference_store, rows, assignment, target, labels))


def _exported(config: ReferencesConfig, references: References) -> References:
    """Write the references where an export is configured, and return them."""
    if config.exported is not None:
        save_reference_outputs(Path(config.exported), references.reference_outputs)
        log.info("wrote phi of target and references to %s", config.exported)
    return references


def _checked_import(
    imported: ReferenceOutputs, inputs: ReferenceInputs, queried: NDArray[np.float32], *, source: str, seed: int
) -> References:
    """Return imported references independent of known membership, with the checks of the import."""
    membership = np.full(len(imported), UNKNOWN, np.int8)
    membership[: len(inputs.public)] = inputs.public.membership
    order = content_order(inputs.public, inputs.private)
    independent = make_independent(imported, membership, seed=seed, source=source, order=order)
    checks = (
        independence_check(independent, len(imported.references)),
        direction_check(imported),
        rows_check(imported),
        scale_check(imported),
        order_check(imported, queried)
        if np.shares_memory(imported.target, queried)
        else agreement_check(imported.target[:, 0], queried),
        coverage_check(independent.reference_outputs),
    )
    return References(independent.reference_outputs, (), checks)


def _halves(inputs: ReferenceInputs) -> list[Outputs]:
    return [half for half in (inputs.outputs, inputs.private_outputs) if half is not None]


def material_of(inputs: ReferenceInputs, queries: int, *, temperature: float = 1.0) -> TrainingData:
    """Return the records for training and queries, public first.

    Raises:
        MIAError: images of different dtypes.
    """
    halves = [half for half in (inputs.public, inputs.private) if half is not None]
    if len({half.images.dtype for half in halves}) > 1:
        raise MIAError("public and private images have different dtypes; references need both as uint8 or as float32")
    images = ImageParts(tuple(half.images for half in halves)) if len(halves) > 1 else halves[0].images
    mean, std = normalization(inputs.public, inputs.mean, inputs.std)
    labels = np.concatenate([half.labels for half in _halves(inputs)])
    classes, order = inputs.target.num_classes, content_order(inputs.public, inputs.private)
    return TrainingData(images, labels, mean, std, classes, queries, temperature, order, inputs.views)


def _store(
    config: ReferencesConfig,
    inputs: ReferenceInputs,
    material: TrainingData,
    assignment: Assignment,
    membership: NDArray[np.int8],
    *,
    store: Path,
    seed: int,
    remote: str | None,
) -> ReferenceStore:
    architecture = config.architecture or inputs.target.architecture
    network = unwrap(inputs.target.network)
    like = {} if config.architecture else network.state_dict()
    recipe = resolved_training(config, inputs.target)
    training = {
        **({"estimator": network.untrained(0).digest()} if isinstance(network, EstimatorNetwork) else {}),
        "architecture": architecture,
        "source": sha256(source_of(architecture).encode()).hexdigest(),
        "shapes": {name: list(tensor.shape) for name, tensor in like.items()},
        "classes": material.num_classes,
        "form": asdict(inputs.target.form),
        "images": array_digest(material.images),
        "labels": array_digest(material.labels),
        "mean": material.mean,
        "std": material.std,
        "scheme": config.scheme,
        "drawn_with": [config.anchored_release, array_digest(membership)] if config.scheme == "anchored" else [],
        "private": int((inputs.private is not None) and len(inputs.private)),
        **({"training": {}} if isinstance(network, EstimatorNetwork) else training_inputs(recipe, config.trainer)),
        **({"start": inputs.target.digest} if recipe.start == "target" else {}),
        **({"head": [inputs.target.digest, inputs.target.feature_layer]} if recipe.is_head else {}),
        "seed": seed,
        "numbers": NUMBERS,
    }
    inference = {
        "queries": material.queries,
        "temperature": material.temperature,
        **({"views": [material.views, source_of(material.views)]} if material.views else {}),
        "code": source_digest(HEAD_CODE + INFERENCE_CODE if recipe.is_head else INFERENCE_CODE),
        "torch": torch.__version__,
    }
    inputs_of_key = {"training": training, "inference": inference}
    return ReferenceStore(store, **inputs_of_key, records=len(material.labels), queries=material.queries, remote=remote)


def _trained(
    config: ReferencesConfig,
    inputs: ReferenceInputs,
    material: TrainingData,
    assignment: Assignment,
    reference_store: ReferenceStore,
    *,
    seed: int,
    ray_address: str | None,
) -> tuple[ReferenceRecord, ...]:
    """Return the description of each reference, after training those that are missing."""
    training = resolved_training(config, inputs.target)
    network = head_factory(inputs.target) if training.is_head else network_of(config, inputs.target)
    if training.is_head or not training.is_built_in:
        log.info("references: training %s, epochs: %d, records per batch: %d", training.class_path, *training.counts())
    elif reason := untrainable_module(config, inputs.target):
        log.warning("%s", reason)
    size = sum(tensor.nbytes for tensor in network(0).state_dict().values())
    reference_store.open(assignment.keep, weights_bytes=size)
    rows: dict[int, ReferenceRecord] = {}
    jobs = []
    for number, keep in enumerate(assignment.keep):
        if (row := reference_store.row(number)) is not None:
            rows[number] = row
            continue
        if reference_store.has_description(number):
            log.warning("phi of reference %d is damaged and computed again", number)
        model_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        jobs.append(
            ReferenceJob(
                number, keep, model_seed, training, network, reference_store, device_of(config), dict(config.trainer)
            )
        )
    if rows:
        log.info("references: %d of %d are in the store", len(rows), config.count)
    if training.is_head:
        train_heads(jobs, material, inputs.target, training, seed=seed)
    else:
        train_references(jobs, material, config, ray_address=ray_address, on_finished=inputs.on_reference)
    return tuple(rows.get(number) or _described(reference_store, number) for number in range(config.count))


def _described(reference_store: ReferenceStore, number: int) -> ReferenceRecord:
    row = reference_store.row(number)
    if row is None:
        raise MIAError(f"reference {number} is missing from the cache; was it deleted during the run?")
    return row


def _references(
    config: ReferencesConfig,
    inputs: ReferenceInputs,
    reference_store: ReferenceStore,
    rows: tuple[ReferenceRecord, ...],
    assignment: Assignment,
    target: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> References:
    trained = np.array([row.status == "trained" for row in rows])
    if not trained.any():
        if isinstance(unwrap(inputs.target.network), EstimatorNetwork):
            raise MIAError(f"all {len(rows)} references failed ({rows[0].reason}); lower --references.count to 0")
        raise MIAError(
            f"all {len(rows)} references diverged ({rows[0].reason}); lower --references.training.learning_rate"
        )
    phi = reference_store.matrix(len(rows))
    reference_outputs = ReferenceOutputs(
        target=target,
        references=phi if trained.all() else phi[trained],
        keep=assignment.keep[trained],
        labels=labels,
        num_classes=inputs.target.num_classes,
        drawn=assignment.drawn[trained],
    )
    checks = training_checks(
        rows,
        accuracy_on_members=inputs.accuracy_on_members,
        accuracy_on_non_members=inputs.accuracy_on_non_members,
        tolerance=config.accuracy_tolerance,
    )
    return References(reference_outputs, rows, (*checks, coverage_check(reference_outputs)))
