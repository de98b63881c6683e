"""Images that stay in their files until they are indexed, and then pass through the user's transform."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError, reason

if TYPE_CHECKING:
    import torch

SMALL = 32
"""Side of the small versions that checks of pixels and reports read."""

REPEATS = 10
"""Calls of the transform on the first image, which must agree: a random flip passes once in 512 times."""

Transform = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class LazyImages:
    """Images (N, C, H, W) float32 as a transform returns them; an index decodes its rows and nothing else.

    Raises (on an index):
        MIAError: a damaged image, or a transform that fails or returns another type or shape than for the first image.
    """

    open: Callable[[int], Any]
    """Returns a PIL image in RGB by its number; picklable."""

    rows: NDArray[np.int64]
    """(N,) numbers of the images."""

    names: Sequence[str]
    """By number, for messages."""

    transform: Transform
    """From a PIL image to a float tensor (C, H, W), deterministic."""

    transform_name: str
    content_digest: str
    """Of files and transform (hex)."""

    ndim: ClassVar[int] = 4
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W), read from the first image."""
        import torch

        first, *repeats = (self._transformed(int(self.rows[0])) for _ in range(REPEATS))
        if not all(torch.equal(first, other) for other in repeats):
            raise MIAError(
                f"--data.transform {self.transform_name}: returns another tensor each time for one image; give the "
                "transform of the evaluation, without random crops and flips"
            )
        return (len(self), *first.shape)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        """Return the decoded and transformed images of some rows, (n, C, H, W), or of one, (C, H, W)."""
        if np.ndim(index) == 0 and not isinstance(index, slice):
            return self.batch(np.asarray([index]))[0].numpy()
        return self.batch(np.arange(len(self))[index]).numpy()

    def batch(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the images of some rows as a tensor, in shared memory where a loader's process decodes them."""
        from torch.utils.data import default_collate

        tensors = []
        for number in self.rows[rows].tolist():
            tensors.append(self._transformed(number))
            if tensors[-1].shape != self.shape[1:]:
                raise MIAError(
                    f"--data.transform {self.transform_name}: returned shape {tuple(tensors[-1].shape)} for "
                    f"{self.names[number]} but {self.shape[1:]} for the first image; resize and crop to one size"
                )
        images: torch.Tensor = default_collate(tensors)
        return images

    def subset(self, index: NDArray[Any] | slice) -> LazyImages:
        """Return some of the images, still in their files."""
        rows = self.rows[index]
        digest = sha256(self.content_digest.encode() + rows.tobytes()).hexdigest()
        return replace(self, rows=rows, content_digest=digest)

    @cached_property
    def small(self) -> NDArray[np.uint8]:
        """(N, 3, 32, 32) small versions of the images before the transform."""
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(self._small, self.rows)))

    def _small(self, number: int) -> NDArray[np.uint8]:
        image = self.open(int(number))
        return np.asarray(image.resize((SMALL, SMALL), reducing_gap=2.0)).transpose(2, 0, 1)

    def _transformed(self, number: int) -> torch.Tensor:
        import torch

        image = self.open(number)
        option = f"--data.transform {self.transform_name}"
        try:
            tensor = self.transform(image)
        except Exception as error:
            problem = f"{type(error).__name__}: {reason(error)}"
            raise MIAError(f"{option}: calling it on a PIL image ({self.names[number]}) failed: {problem}") from None
        if isinstance(tensor, np.ndarray) and tensor.dtype.kind == "f":
            tensor = torch.from_numpy(tensor)
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 3 or not tensor.is_floating_point():
            kind = (
                f"a tensor of shape {tuple(tensor.shape)} and {tensor.dtype}"
                if isinstance(tensor, torch.Tensor)
                else f"a {type(tensor).__name__}"
            )
            raise MIAError(f"{option}: returned {kind} for an image; expected a float tensor (C, H, W), as of ToTensor")
        is_finite = bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())  # the sum is much faster
        if not is_finite:
            raise MIAError(f"{option}: returned NaN or infinite values for {self.names[number]}")
        return tensor.float()


def lazy_digest(parts: Sequence[bytes], transform: Transform, name: str) -> str:
    """Return a digest (hex) of image contents, the transform's form and the source text of its module."""
    import PIL
    import torchvision

    form = getattr(transform, "__qualname__", None) or repr(transform)
    try:
        source = inspect.getsource(sys.modules[name.partition(":")[0]])
    except (KeyError, OSError, TypeError):  # defined in a prompt
        source = ""
    digest = sha256(f"{form} {source} {PIL.__version__} {torchvision.__version__}".encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
