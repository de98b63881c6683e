"""Lightning module of extraction: the target over batches that fit into the memory of its device."""

from __future__ import annotations

import logging
from collections.abc import Callable

import lightning as L
import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError
from mia_lightning.outputs.datamodule import Batch
from mia_lightning.outputs.phi import phi, predicted
from mia_lightning.outputs.views import views
from mia_lightning.records.records import UNKNOWN
from mia_lightning.targets.callables import FunctionNetwork

log = logging.getLogger(__name__)

Normalize = Callable[[Tensor], Tensor]


class InferenceModule(L.LightningModule):
    """The target behind `predict_step`.

    Args:
        network: Returns (logits, features) of normalized images.
        normalize: Turns images as they are stored into the network's inputs, on their device.
        queries: See `mia_lightning.outputs.views`.
        views: The user's function of views, see there.
        gradients: Whether to compute the gradient of phi with respect to the stored image.
        batch_size: Rows of every forward pass; a shorter batch is padded, because kernels round differently at another
            size, and a record's outputs must not depend on its batch. It is halved when memory runs out.
    """

    def __init__(
        self,
        network: nn.Module,
        normalize: Normalize,
        *,
        queries: int,
        gradients: bool,
        batch_size: int,
        views: str | None = None,
    ) -> None:
        super().__init__()
        self.network, self.normalize = network, normalize
        self.queries, self.gradients, self.batch_size, self.views = queries, gradients, batch_size, views
        self.is_function = any(isinstance(module, FunctionNetwork) for module in network.modules())

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return index (B,), logits (B, Q, C), features (B, D), gradient_norms (B, 0 or 3) and labels (B,) or (B, C).

        Everything is float32 whatever the precision of the network. Features and gradients are those of query 0. A
        missing label is replaced by the class predicted for query 0.

        Raises:
            MIAError: the device's memory does not hold a single image's pass.
        """
        parts: list[dict[str, Tensor]] = []
        start, count = 0, len(batch["index"])
        while start < count:
            rows = slice(start, start + self.batch_size)
            outputs = self._try({name: tensor[rows] for name, tensor in batch.items()})
            if outputs is None:
                self._halve()
            else:
                parts.append(outputs)
                start += self.batch_size
        if len(parts) == 1:
            return parts[0]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _try(self, batch: Batch) -> dict[str, Tensor] | None:
        """Return the outputs, or None if memory runs out; the memory of the failed pass is free again on return."""
        try:
            return self._outputs(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _halve(self) -> None:
        if self.batch_size == 1:
            raise MIAError(
                "the device's memory does not hold the pass of a single image; run it on a larger device, or with "
                "--hardware.accelerator cpu"
            )
        log.warning(
            "the device's memory does not hold %d images at a time, going on with %d; outputs from here on may "
            "differ in the last bits from those of a run with enough memory",
            self.batch_size,
            self.batch_size // 2,
        )
        self.batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _outputs(self, batch: Batch) -> dict[str, Tensor]:
        count, logits, features = len(batch["index"]), [], None
        rows = count if self.is_function else self.batch_size  # a function may be paid by the query
        stored, given = (_filled(batch[name], rows) for name in ("images", "labels"))
        images = self.normalize(stored)
        for view in views(images, self.queries, self.views):
            view_logits, tapped = self.network(view)
            logits.append(view_logits.float())
            features = tapped if features is None else features
        assert features is not None
        labels = torch.where(given == UNKNOWN, predicted(logits[0], given), given)
        empty = logits[0].new_empty(len(labels), 0)
        return {
            "index": batch["index"],
            "logits": torch.stack(logits, dim=1)[:count],
            "features": features.float()[:count],
            "gradient_norms": (self._gradient_norms(images, labels) if self.gradients else empty)[:count],
            "labels": labels[:count],
        }

    def _gradient_norms(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return L2, L1 and largest absolute entry of d phi / d image, (B, 3), always computed in float32.

        The loss is softplus(-phi), so its gradient is sigmoid(-phi) times this one and needs no pass of its own.
        """
        with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
            inputs = images.detach().float().requires_grad_()
            logits, _ = self.network(inputs)
            (gradient,) = torch.autograd.grad(phi(logits, labels).sum(), inputs)
        flat = gradient.flatten(1)
        return torch.stack([flat.norm(dim=1), flat.abs().sum(dim=1), flat.abs().amax(dim=1)], dim=1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is of full memory; on CPUs and Apple's devices only the message of a RuntimeError shows it."""
    words = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "unable to find an engine")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def _filled(rows: Tensor, count: int) -> Tensor:
    """Return the rows with the first one repeated up to a count."""
    return rows if len(rows) >= count else torch.cat([rows, rows[:1].expand(count - len(rows), *rows.shape[1:])])
