"""Training of one reference by the recipe's code: the built-in training, a LightningModule or a function."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mia_lightning.errors import MIAError
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.training import DivergedError, Epoch, train_reference
from mia_lightning.references.training_data import ReferenceDataset, TrainingData
from mia_lightning.references.training_step import DeviceSession
from mia_lightning.references.user_training import OPTION, is_module, trainer_code, user_error
from mia_lightning.runtime.trainers import isolated_fabric
from mia_lightning.targets.imported import import_callable
from mia_lightning.targets.wrapper import TargetNetwork, unwrap


def fit_reference(
    network: nn.Module,
    material: TrainingData,
    keep: NDArray[np.bool_],
    recipe: ReferenceTraining,
    trainer: Mapping[str, Any],
    *,
    seed: int,
    checkpoint: Path,
    device: str,
    on_epoch: Epoch | None = None,
    session: DeviceSession | None = None,
) -> nn.Module:
    """Train one reference by the recipe, resuming from its last finished epoch if there is one, and return it.

    A function of the user's has no checkpoints and starts from the beginning.

    Args:
        network: Untrained, with the starting weights; changed in place.
        material: The records.
        keep: (N,) True for the records to train on.
        recipe: From `resolved_training`.
        trainer: Options of Lightning's Trainer, for a LightningModule.
        seed: Drives everything random; global random states are restored.
        checkpoint: File of the last finished epoch.
        device: "cpu" or "cuda".
        on_epoch: Callback invoked after each epoch.
        session: Of the built-in training, see `train_reference`.

    Raises:
        DivergedError: a loss that is not finite.
        MIAError: an error in the user's code, in one sentence.
    """
    if recipe.is_head:
        raise MIAError(f"{OPTION} head trains the heads of one run at once; leave it out of searches and benchmarks")
    code = trainer_code(recipe)
    options: dict[str, Any] = {"seed": seed, "on_epoch": on_epoch}
    if code is None:
        options |= {"checkpoint": checkpoint, "device": device, "session": session}
        return train_reference(network, material, keep, recipe, **options)
    if not is_module(code):
        return _by_function(code, network, material, keep, recipe, **options)
    from mia_lightning.references.lightning_training import fit_module

    dataset = _dataset(network, material, keep, recipe, device)
    fit_module(unwrap(network), dataset, recipe, trainer, checkpoint=checkpoint, device=device, **options)
    return network.cpu().eval()


def try_training(
    network: nn.Module, material: TrainingData, recipe: ReferenceTraining, trainer: Mapping[str, Any], *, device: str
) -> None:
    """Train one batch of a LightningModule and query it, so that mistakes show before any work.

    Args:
        network: Untrained; changed in place.
        material: Some of the records, at least one batch.
        recipe: From `resolved_training`; training by other code is not tried.
        trainer: Options of Lightning's Trainer.
        device: "cpu" or "cuda".

    Raises:
        MIAError: an error in the user's code or options, in one sentence.
    """
    code, name = trainer_code(recipe), str(recipe.class_path)
    if code is None or not is_module(code):
        return
    from mia_lightning.references.lightning_training import fit_module

    dataset = _dataset(network, material, np.ones(len(material.labels), np.bool_), recipe, device)
    fit_module(unwrap(network), dataset, recipe, trainer, seed=0, checkpoint=None, device=device, is_trial=True)
    try:
        with torch.inference_mode():
            logits = unwrap(network).cpu().eval()(dataset[torch.arange(2)][0].cpu())
    except Exception as error:
        raise user_error(name, error, "forward is called with images (B, C, H, W) and returns logits") from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    is_target = isinstance(network, TargetNetwork)  # which converts other outputs
    if not is_target and shape != (2, material.num_classes):
        raise MIAError(
            f"{OPTION} {name}: its forward returns {shape} for 2 images; it must return logits (2, "
            f"{material.num_classes})"
        )


def _by_function(
    code: Any,
    network: nn.Module,
    material: TrainingData,
    keep: NDArray[np.bool_],
    recipe: ReferenceTraining,
    *,
    seed: int,
    on_epoch: Epoch | None,
) -> nn.Module:
    from mia_lightning.references.random_state import own_random_state, seed_everything

    name, inner = str(recipe.class_path), unwrap(network)
    expected = {key: tensor.shape for key, tensor in inner.state_dict().items()}
    dataset = _dataset(network, material, keep, recipe, "cpu")
    with own_random_state():
        seed_everything(seed, 0)
        try:
            trained = code(inner.train(), dataset, seed, on_epoch or (lambda epoch, loss: None), **recipe.init_args)
        except (DivergedError, MIAError):
            raise
        except Exception as error:
            advice = "the dataset returns (image, label): float32 (C, H, W) and an integer"
            raise user_error(name, error, advice) from error
    if not isinstance(trained, nn.Module):
        raise MIAError(f"{OPTION} {name}: returned {type(trained).__name__}; return the trained network")
    state = trained.state_dict()
    if {key: tensor.shape for key, tensor in state.items()} != expected:
        raise MIAError(
            f"{OPTION} {name}: returned a module with other weights than the network that it was given; return that "
            "network, or a copy of it"
        )
    inner.load_state_dict(state)
    return network.cpu().eval()


def _dataset(
    network: nn.Module, material: TrainingData, keep: NDArray[np.bool_], recipe: ReferenceTraining, device: str
) -> ReferenceDataset:
    wrapper = network if isinstance(network, TargetNetwork) else None
    transform = import_callable(recipe.transform, "--references.training.transform") if recipe.transform else None
    return ReferenceDataset(
        material,
        keep,
        isolated_fabric(device).device,
        inputs=wrapper.inputs if wrapper and transform is None else None,
        class_order=wrapper.form.class_order if wrapper else None,
        transform=transform,
    )
