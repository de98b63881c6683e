"""Global random states of torch, NumPy and Python, which the user's code may draw from."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def seed_everything(seed: int, epoch: int) -> None:
    """Seed the global random states for one epoch."""
    value = epoch_seed(seed, epoch)
    torch.manual_seed(value)
    np.random.seed(value)  # noqa: NPY002
    random.seed(value)


@contextmanager
def own_random_state() -> Iterator[None]:
    """Restore the global random states at the end of the block."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
