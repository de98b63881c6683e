"""CUDA tensors without values on a machine without CUDA; what makes the host wait is counted or fails."""

from collections import Counter
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda")


class Counting(TorchDispatchMode):
    """Counts blocking and asynchronous copies; a read of a value, a mask or an unlike device fails by itself."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        source, target = getattr(args[0], "device", None) if args else None, kwargs.get("device")
        if function is torch.ops.aten._to_copy.default and target is not None and target.type != source.type:
            name = "asynchronous" if kwargs.get("non_blocking") else "blocking"
            self.counts[f"{name} to {target.type}"] += 1
        return function(*args, **kwargs)


class Stream:
    """A stream whose events are counted."""

    def __init__(self, counts):
        self.counts, self.recorded = counts, 0

    def wait_stream(self, other):
        self.counts["stream waits"] += 1

    def record_event(self):
        self.recorded += 1
        number = self.recorded
        return SimpleNamespace(synchronize=lambda: self.waited(number))

    def waited(self, number):
        """Count a wait of the host, and the events that it had recorded beyond the one it waits for."""
        self.counts["host waits"] += 1
        self.ahead = min(getattr(self, "ahead", 99), self.recorded - number)


@contextmanager
def fake_cuda(monkeypatch, *, free=1 << 40):
    """Yield (counts, the current stream); CUDA tensors can be made within the block, and have no values."""
    counting = Counting()
    current = Stream(counting.counts)
    for name, value in {
        "Stream": lambda *_: Stream(counting.counts),
        "current_stream": lambda *_: current,
        "stream": lambda _: nullcontext(),
        "mem_get_info": lambda _: (free, free),
        "memory_reserved": lambda _: 0,
        "memory_allocated": lambda _: 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(torch.Tensor, "numpy", lambda self, **_: np.zeros(self.shape, np.int64))
    with FakeTensorMode(allow_non_fake_inputs=True), counting:
        yield counting.counts, current
