"""Copies between the host and a CUDA device that neither of them waits for."""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")

log = logging.getLogger(__name__)

AHEAD = 4
"""Batches that the host may be ahead of the device: enough to keep it busy, and a bound on memory."""

RESIDENT_SHARE = 0.5
"""Largest share of the free memory of a device that images may take to stay there."""


def fits(size: int, device: torch.device) -> bool:
    """Whether images of a number of bytes stay in the memory of a CUDA device, decided from its free memory."""
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # free again without a new request
    resident = size <= RESIDENT_SHARE * free
    way = "stay in the device's memory" if resident else "are copied batch by batch from pinned memory"
    log.info("images: %.2f GiB %s (%.1f GiB free)", size / 2**30, way, free / 2**30)
    return resident


class DeviceCopies:
    """Copies of batches to a CUDA device in a stream of their own, during the computation with the batches before."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.computed: deque[torch.cuda.Event] = deque()

    def __call__(self, batch: Tensor) -> Tensor:
        """Return a batch on the device; work that is queued from here on waits for the copy, the host does not.

        All work with earlier batches has to be queued already. The host waits only where it is `AHEAD` batches ahead.
        """
        current = torch.cuda.current_stream(self.device)
        self.computed.append(current.record_event())
        if len(self.computed) > AHEAD:
            self.computed.popleft().synchronize()
        with torch.cuda.stream(self.stream):
            copy = batch.pin_memory().to(self.device, non_blocking=True)
        current.wait_stream(self.stream)
        copy.record_stream(current)  # its memory is not given away before this stream has used it
        return copy


class HostCopies(Generic[Key]):
    """Results on their way to the host, which reads them in order once the device has computed them.

    Args:
        ahead: Results on the device that may be on their way; those on a CPU arrive at once.
    """

    def __init__(self, ahead: int = AHEAD) -> None:
        self.ahead = ahead
        self.pending: deque[tuple[Key, dict[str, Tensor], torch.cuda.Event | None]] = deque()

    def add(self, key: Key, results: Mapping[str, Tensor]) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Copy results by name, on CUDA into pinned memory, and yield those that are due as NumPy arrays."""
        on_cuda = any(tensor.is_cuda for tensor in results.values())
        copies = {name: tensor.to("cpu", non_blocking=tensor.is_cuda) for name, tensor in results.items()}
        self.pending.append((key, copies, torch.cuda.current_stream().record_event() if on_cuda else None))
        return self._arrived(self.ahead if on_cuda else 0)

    def rest(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Yield all that have not been yielded."""
        return self._arrived(0)

    def _arrived(self, pending: int) -> Iterator[tuple[Key, dict[str, Any]]]:
        while len(self.pending) > pending:
            key, copies, event = self.pending.popleft()
            if event is not None:
                event.synchronize()
            yield key, {name: tensor.numpy() for name, tensor in copies.items()}
