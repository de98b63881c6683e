"""Devices and precision of extraction."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
"""Accelerators that Lightning knows by these names."""


@dataclass
class Hardware:
    """Devices of extraction; fields are named as in Lightning."""

    accelerator: str = "auto"
    """auto, cpu, gpu, mps or tpu."""

    devices: int | str = "auto"
    """Number of devices, or auto for all."""

    num_nodes: int = 1
    """Number of machines."""

    strategy: str = "auto"
    """Lightning's strategy over several devices, such as ddp."""

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Precision of the network; logits are cast up to float32 before any statistic either way. bf16-mixed is faster and
    moves phi by about 0.01."""

    batch_size: int = 0
    """Images per forward pass and device; 0 = 256 on a CPU, 4096 elsewhere."""

    loader_workers: int = -1
    """Processes that decode image files with a --data.transform; -1 = one per CPU core."""

    fuse: bool = True
    """Whether batch normalization is folded and convolutions over tiny maps are rewritten, which changes logits by
    rounding only and is checked on a sample."""

    def __post_init__(self) -> None:
        if self.batch_size < 0:
            raise ValueError(f"batch_size must be 0 or more, got {self.batch_size}")
        if self.num_nodes < 1:
            raise ValueError(f"num_nodes must be 1 or more, got {self.num_nodes}")
        if isinstance(self.devices, int) and self.devices < 1:
            raise ValueError(f"devices must be 1 or more or auto, got {self.devices}")


def torch_device(accelerator: str) -> str:
    """Return the torch device that Lightning chooses for one of `ACCELERATORS`: "cuda", "mps" or "cpu"."""
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    return "mps" if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"


def is_started_from_outside() -> bool:
    """Whether torchrun, SLURM or the like started the processes of this run."""
    return any(os.environ.get(name, "1") != "1" for name in ("WORLD_SIZE", "SLURM_NTASKS"))


def is_first_process() -> bool:
    """Whether this process goes on after extraction; the others only help with it."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def mps_is_running() -> bool:
    """Whether the control daemon of NVIDIA's Multi-Process Service runs here, by its pipe."""
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists()
