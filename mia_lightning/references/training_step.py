"""Forward and backward pass of a training step, on CUDA recorded once for all references of a run."""

import logging
import random
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mia_lightning.references.training_data import Resident, TrainingData, on_device
from mia_lightning.targets.imported import first_line

log = logging.getLogger(__name__)

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Runs a function that reads and writes fixed tensors, and returns what repeats it."""

WARM_UP = 3
"""Passes before a recording, in which libraries choose their kernels."""


def classification_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy of logits (B, C) with labels (B,); with (B, C) of 0 and 1, the sum over C binary
    ones.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    smooth = labels * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, smooth, reduction="sum") / len(logits)


class TrainingStep:
    """Loss and gradients of one batch.

    Args:
        network: On its device, in training mode.
        autocast: Returns the context of the forward pass.
        label_smoothing: Of the loss.
        compiled: Applied to the network once, such as `torch.compile`.
    """

    def __init__(
        self,
        network: nn.Module,
        autocast: Callable[[], AbstractContextManager[None]],
        label_smoothing: float,
        compiled: Callable[[nn.Module], Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        self.network, self.autocast, self.label_smoothing = network, autocast, label_smoothing
        self.forward = network if compiled is None else compiled(network)
        self.repeat: Callable[[], None] | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Set the gradients and return the loss, which a recorded step overwrites at its next call."""
        if self.repeat is None:
            return self._pass(images, labels)
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.repeat()
        return self.loss

    def record(self, images: Tensor, labels: Tensor, record: Record) -> None:
        """Record the step on copies of a batch; where that is impossible, it is run operation by operation.

        Weights, batch and gradients keep their places in memory from here on; running statistics change.
        """
        self.images, self.labels = images.clone(), labels.clone()
        self.loss = torch.zeros((), device=images.device)
        try:
            self.repeat = record(self._run)
        except RuntimeError as error:
            log.info("the training step is not recorded as a CUDA graph: %s", first_line(error))

    def _run(self) -> None:
        self.loss.copy_(self._pass(self.images, self.labels))

    def _pass(self, images: Tensor, labels: Tensor) -> Tensor:
        with self.autocast():
            loss = classification_loss(self.forward(images), labels, self.label_smoothing)
        self.network.zero_grad(set_to_none=True)  # gradients are written, not added to
        torch.autograd.backward(loss)
        return loss.detach()


def cuda_graph(run: Callable[[], None]) -> Callable[[], None]:
    """Record a function as a CUDA graph.

    Raises:
        RuntimeError: it waits for the device, draws random numbers on the CPU, or memory runs out.
    """
    before = random.getstate(), torch.get_rng_state()
    stream, mode = torch.cuda.Stream(), torch.cuda.get_sync_debug_mode()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*prototype feature")
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    run()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    torch.cuda.current_stream().wait_stream(stream)
    if random.getstate() != before[0] or not torch.equal(torch.get_rng_state(), before[1]):
        raise RuntimeError("its forward draws random numbers on the CPU")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay


class DeviceSession:
    """What the references of a run share on their device: the records and, on CUDA, a network with its recorded step.

    Args:
        material: The records.
        record: How steps are recorded (default: as CUDA graphs on CUDA, not at all on a CPU).
        compiled: See `TrainingStep`.
    """

    def __init__(
        self,
        material: TrainingData,
        *,
        record: Record | None = None,
        compiled: Callable[[nn.Module], Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        self.material, self.compiled = material, compiled
        self._record = record
        self._resident: Resident | None = None
        self._step: TrainingStep | None = None

    def recorder(self, device: torch.device) -> Record | None:
        """Return how steps are recorded on a device."""
        return self._record or (cuda_graph if device.type == "cuda" else None)

    def resident(self, device: torch.device) -> Resident:
        """Return images and labels on the device."""
        if self._resident is None:
            self._resident = on_device(self.material, device)
        return self._resident

    def step(self, network: nn.Module, recorded: Callable[[nn.Module], TrainingStep]) -> TrainingStep:
        """Return the recorded step with the weights of a network on the CPU, which stays as it is.

        Args:
            network: Of one structure and recipe throughout the session.
            recorded: Records the step of a network; called once.
        """
        if self._step is None:
            self._step = recorded(deepcopy(network))
        self._step.network.load_state_dict(network.state_dict())
        return self._step
