"""Functions of a batch as networks: predict_proba, label-only functions, and any other callable."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mia_lightning.errors import MIAError
from mia_lightning.targets.imported import first_line

LABELS = "the target returns labels alone, so that phi only distinguishes correct from wrong"


def as_array(batch: Tensor) -> NDArray[Any]:
    """Return a batch as a NumPy array."""
    return batch.detach().cpu().numpy()


def as_tensor(batch: Tensor) -> Tensor:
    """Return a batch unchanged."""
    return batch


def stacked_outputs(returned: Sequence[Any], count: int, name: str) -> NDArray[Any]:
    """Return one array of a list: of rows, or the probability (N, C) of label 1 from C arrays (N, 2) of predict_proba.

    Raises:
        MIAError: arrays of outputs that are not binary.
    """
    shapes = {np.shape(value) for value in returned}
    if shapes == {(count, 2)} and len(returned) > 1:
        return np.stack([np.asarray(value)[:, 1] for value in returned], axis=1)
    if len(returned) != count and any(shape[:1] == (count,) for shape in shapes):
        raise MIAError(f"{name} returned {len(returned)} arrays, one per output; audit one output at a time")
    return np.stack([np.asarray(value) for value in returned])


class FunctionNetwork(nn.Module):
    """A function of a batch as a network without parameters, gradients and features.

    forward: inputs (B, ...) to what the function returns, with its arrays as tensors on the inputs' device. Labels
    (integers or strings, (B,)) become one-hot rows.

    Args:
        function: Such as `estimator.predict_proba`.
        name: Of the function, for messages.
        convert: Makes the function's argument from a batch (B, ...) on any device.
        classes: Label of each class, in the order of the class numbers; for functions that return labels. Any other
            label becomes one more class.

    Raises:
        MIAError (forward): the function fails, or returns NaN, another type, or another number of rows.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        name: str,
        *,
        convert: Callable[[Tensor], Any] = as_array,
        classes: Sequence[object] | None = None,
    ) -> None:
        super().__init__()
        self.function, self.name, self.convert = function, name, convert
        self.returns_labels = False
        self.labels_alone = False
        """Whether it must return labels, of any dtype."""

        self.classes = None if classes is None else np.asarray(classes)
        self.shape: tuple[int, ...] | None = None
        """Of a row of the first outputs, for functions that return one tensor."""

    def forward(self, inputs: Tensor) -> Any:
        """Return what the function returns for a batch, as tensors."""
        try:
            returned = self.function(self.convert(inputs))
        except MIAError:
            raise
        except Exception as error:
            raise MIAError(
                f"calling {self.name} on a batch of shape {tuple(inputs.shape)} failed: {first_line(error)}"
            ) from error
        outputs = self._tensors(returned, inputs)
        if isinstance(outputs, Tensor):
            shape = tuple(outputs.shape[1:])
            if self.shape not in (None, shape):
                raise MIAError(
                    f"{self.name} returned rows of shape {shape} for a batch of {len(inputs)} records, but of "
                    f"{self.shape} before; return one value per class for every batch"
                )
            self.shape = shape
        return outputs

    def _tensors(self, returned: Any, inputs: Tensor) -> Any:
        if isinstance(returned, Mapping):  # a loss next to the class scores is one value
            items = returned.items()
            return {name: value if np.ndim(value) == 0 else self._tensors(value, inputs) for name, value in items}
        if isinstance(returned, tuple):
            return tuple(value if np.ndim(value) == 0 else self._tensors(value, inputs) for value in returned)
        if isinstance(returned, list) and returned and isinstance(returned[0], Tensor | np.ndarray):
            returned = stacked_outputs(returned, len(inputs), self.name)
        if isinstance(returned, Tensor):
            values: Tensor = returned
        elif hasattr(returned, "__array__") or isinstance(returned, list):
            values = self._from_array(np.asarray(returned))
        else:
            return returned  # such as the output object of a transformer, whose attributes are tensors
        if len(values.shape) == 0 or len(values) != len(inputs):
            rows = "a single value" if values.ndim == 0 else f"{len(values)} rows"
            raise MIAError(f"{self.name} returned {rows} for a batch of {len(inputs)} records; return one row each")
        is_column = values.ndim == 1 or values.shape[1:] == (1,)
        if self.labels_alone and not (self.returns_labels or (is_column and _is_whole(values))):
            raise MIAError(
                f"{self.name} returned values of shape {tuple(values.shape)} for {len(inputs)} records, not one label "
                "each, as --target.output labels states; leave it out and restrict the attacks by --access label"
            )
        if is_column and (self.labels_alone or not values.is_floating_point()):
            values = self._one_hot(as_array(values).reshape(-1))
        if bool(values.isnan().any()):
            row = int(values.isnan().reshape(len(values), -1).any(dim=1).int().argmax())
            raise MIAError(
                f"{self.name} returned NaN for row {row} of a batch of {len(inputs)} records; return finite values"
            )
        return values.to(inputs.device)

    def _from_array(self, array: NDArray[Any]) -> Tensor:
        if array.dtype.kind in "USO":
            if array.ndim != 1:
                raise MIAError(
                    f"{self.name} returned an array of {array.dtype}; return numbers, or one label per record"
                )
            return self._one_hot(array)
        if array.dtype.kind not in "fiub":
            raise MIAError(f"{self.name} returned {array.dtype} values; return logits, probabilities or labels")
        return torch.from_numpy(np.array(array))  # a copy: the function may use its own again

    def _one_hot(self, labels: NDArray[Any]) -> Tensor:
        """Return labels (B,) as probabilities (B, classes + 1) of 0 and 1; the last column is any other label."""
        if self.classes is None:
            raise MIAError(
                f"{self.name} returned labels, but the number of classes is unknown; give --target.num_classes"
            )
        self.returns_labels = True
        classes = self.classes if labels.dtype.kind in "USO" else self.classes.astype(labels.dtype)
        texts = labels.astype(classes.dtype) if labels.dtype.kind == "O" else labels
        index = np.full(len(texts), len(classes))
        for number, label in enumerate(classes):
            index[texts == label] = number
        return F.one_hot(torch.from_numpy(index), len(classes) + 1).float()


def _is_whole(values: Tensor) -> bool:
    return not values.is_floating_point() or bool((values == values.round()).all())


def is_labels(network: nn.Module) -> bool:
    """Whether a network has returned labels."""
    return isinstance(network, FunctionNetwork) and network.returns_labels


def of_labels(network: nn.Module, name: str, classes: Sequence[object] | int | None) -> FunctionNetwork:
    """Return a network or function that returns labels alone (`--target.output labels`) as one of one-hot rows."""
    function = network if type(network) is FunctionNetwork else FunctionNetwork(network, name, convert=as_tensor)
    function.labels_alone = True
    if classes is not None:
        function.classes = np.arange(classes) if isinstance(classes, int) else np.asarray(classes)
    return function
