"""One small audit in the assignment's own file formats, shared by the tests that need a whole run."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

COUNT, CLASSES = 240, 4

# How long an example takes depends on what else the machine does; no test asserts a time.
settings.register_profile("any machine", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: a long one at the end would keep one process busy alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all processes of this run of pytest share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def _train_demo_once(shared) -> None:
    """Train the demo's target once; it takes as long as ten other tests."""
    if "torch" in sys.modules:
        import torch
        from filelock import FileLock

        from mia_lightning.targets import demo

        train = demo._train

        def train_once(network: nn.Module, *arguments: object) -> nn.Module:
            path = shared / f"demo-{demo.EPOCHS}.pt"
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    torch.save(train(network, *arguments).state_dict(), path)
            network.load_state_dict(torch.load(path))
            return network

        demo._train = train_once


@pytest.fixture(scope="session", autouse=True)
def _short_runs() -> None:
    """Shorten complete runs, here and in processes of `helpers.forked`."""
    if "torch" in sys.modules:
        import helpers.short_runs  # noqa: F401


@dataclass
class Task:
    """Arrays behind the files of a small assignment, and the files."""

    folder: Path
    ids: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    membership: np.ndarray

    @property
    def arguments(self) -> list[str]:
        """The options that name the files, with attacks quick enough for a test."""
        return [
            *("--config", str(self.folder / "quick.yaml")),
            *("--data.public", str(self.folder / "pub.pt")),
            *("--data.private", str(self.folder / "priv_out.pt")),
            *("--target.checkpoint", str(self.folder / "01_MIA.pt")),
        ]


QUICK = """
data: {mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
attacks:
  loss_threshold: {class_path: Threshold, init_args: {column: loss, higher_is_member: false}}
  mlp: {class_path: MLP, init_args: {columns: [phi, entropy, features], epochs: 2, hidden: [8]}}
  fusion: {class_path: Fusion, init_args: {members: [loss_threshold, mlp]}}
hardware: {accelerator: cpu}
"""


def train_briefly(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    import torch
    from torch import nn
    from torchvision.models import resnet18

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small batches on a busy machine: threads would wait for one another
    network = resnet18(num_classes=CLASSES)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    for _ in range(12):
        for batch in torch.randperm(len(labels)).split(60):
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    torch.set_num_threads(threads)
    return network.eval()


@pytest.fixture(scope="session")
def task(shared) -> Task:
    """A ResNet18 that classifies its members, half of 480 noise images, without error; 240 public, 240 private."""
    import numpy as np
    import torch
    from filelock import FileLock
    from helpers.datasets import write_pickled

    folder = shared / "task"
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 256, (2 * COUNT, 3, 32, 32)) / 255).astype(np.float32)
    labels = rng.integers(0, CLASSES, 2 * COUNT)
    membership = rng.permutation(np.repeat([0, 1], COUNT)).astype(np.int8)
    ids = rng.permutation(10_000)[: 2 * COUNT]
    with FileLock(f"{folder}.lock"):
        if (folder / "quick.yaml").exists():  # all is written by another process
            return Task(folder, ids, images, labels, membership)
        folder.mkdir()
        inputs = (torch.from_numpy(images) - 0.5) / 0.25
        network = train_briefly(inputs[membership == 1], torch.from_numpy(labels)[membership == 1])
        torch.save(network.state_dict(), folder / "01_MIA.pt")
        halves = (("pub.pt", slice(0, COUNT), membership[:COUNT].tolist()), ("priv_out.pt", slice(COUNT, None), None))
        for name, rows, known in halves:
            tensors = list(torch.from_numpy(images[rows]))
            write_pickled(folder / name, ids[rows].tolist(), tensors, labels[rows].tolist(), known or [None] * COUNT)
        (folder / "quick.yaml").write_text(QUICK)
    return Task(folder, ids, images, labels, membership)
