"""The target's network between preprocessing and logits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mia_lightning.errors import MIAError
from mia_lightning.targets import output_kind
from mia_lightning.targets.base import OutputKind, TargetForm
from mia_lightning.targets.imported import first_line, import_callable


class TargetNetwork(nn.Module):
    """A network with the resizing and transform before it and the conversion into logits after it.

    forward: normalized images (B, C, H, W) to float32 logits (B, classes). Can be copied, pickled and traced.
    """

    def __init__(self, network: nn.Module, form: TargetForm) -> None:
        super().__init__()
        self.network, self.form = network, form
        self._transform: Callable[..., Any] | None = None
        if form.transform is not None:
            self._transform = import_callable(form.transform, "--data.transform")

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 logits (B, classes) for normalized images (B, C, H, W)."""
        return self.logits(self.network(self.inputs(images)))

    def inputs(self, images: Tensor) -> Tensor:
        """Return the images as the network receives them."""
        if self.form.copies_inputs:
            images = images.clone()
        if (side := self.form.resize) is not None:
            images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        return images if self._transform is None else self._transform(images)

    def logits(self, outputs: Any) -> Tensor:
        """Return float32 logits (B, classes) for what the network returned."""
        logits = output_kind.to_logits(output_kind.item_of(outputs, self.form.item), self.form.output)
        return logits if self.form.class_order is None else logits[:, list(self.form.class_order)]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_transform": None}  # imported again by name in another process

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.form.transform is not None:
            self._transform = import_callable(self.form.transform, "--data.transform")


def wrap(network: nn.Module, form: TargetForm) -> nn.Module:
    """Return the network, wrapped where the form requires it (the stem is part of the network)."""
    return network if replace(form, stem="auto") == TargetForm() else TargetNetwork(network, form)


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside `TargetNetwork`, or the network itself."""
    return network.network if isinstance(network, TargetNetwork) else network


def prefix_of(network: nn.Module) -> str:
    """Return what `wrap` put before the names of submodules: "network." or ""."""
    return "network." if isinstance(network, TargetNetwork) else ""


def recognized(
    network: nn.Module, form: TargetForm, samples: list[Tensor], output: str, multi_label: bool = False
) -> TargetForm:
    """Return the form with item and kind of the network's outputs filled in, from its outputs on samples.

    Args:
        network: In eval mode, unwrapped.
        form: Its preprocessing is applied to the samples.
        samples: Batches of varied images (B, C, H, W).
        output: "auto", or the kind as configured.
        multi_label: Whether each output is that of an independent label.

    Raises:
        MIAError: the outputs contain no logits, or contradict the configured kind or independent labels.
    """
    inputs = TargetNetwork(network, form)
    with torch.inference_mode():
        given = [_checked_inputs(inputs, sample) for sample in samples]
        passed = [sample.clone() for sample in given]
        returned = [network(sample) for sample in passed]
    is_changed = not all(torch.equal(*pair) for pair in zip(given, passed, strict=True))
    tensors = [output_kind.select_tensor(outputs) for outputs in returned]
    item = tensors[0][1]
    pairs = zip(tensors, samples, strict=True)
    values = torch.cat([_vectors(tensor.float() if multi_label else tensor, len(x)) for (tensor, _), x in pairs])
    if values.shape[1] == 1 and len(values) > 1 and bool((values == values.round()).all()):
        raise MIAError(_class_numbers(values))
    recognized_kind = output_kind.recognize(values)
    if multi_label:
        recognized_kind = _of_independent(values, output, recognized_kind)
    if output not in ("auto", "labels", recognized_kind):
        _check_configured(output, recognized_kind, values)
    kind: Any = recognized_kind if output in ("auto", "labels") else output
    return replace(form, item=item, output=kind, copies_inputs=is_changed)


def _of_independent(values: Tensor, output: str, kind: OutputKind) -> OutputKind:
    """Return "logits" or "sigmoids" for outputs of independent labels."""
    if output == "labels" and bool(((values != 0) & (values != 1)).any()):
        raise MIAError(
            "--target.output labels does not fit: the target returns other values than 0 and 1 for each label; leave "
            "it out and restrict the attacks by --access label"
        )
    if output not in ("auto", "logits", "sigmoids", "labels") or (output == "auto" and kind.endswith("probabilities")):
        raise MIAError(
            f"the records have several labels, but the target returns {kind if output == 'auto' else output} of one "
            "class per record; give one class per record, or a target with a logit or sigmoid probability per label"
        )
    return "sigmoids" if bool(((values >= -1e-6) & (values <= 1 + 1e-6)).all()) else "logits"


def check_class_order(network: nn.Module, form: TargetForm, sample: Tensor) -> None:
    """Raise MIAError where the form's order of the classes is not one of all outputs; queries the sample for these."""
    if form.class_order is None:
        return
    with torch.inference_mode():
        classes = int(wrap(network, replace(form, class_order=None)).eval()(sample).shape[1])
    if sorted(form.class_order) != list(range(classes)):
        raise MIAError(f"--target.class_order must contain each of 0 to {classes - 1} once")


def _checked_inputs(wrapper: TargetNetwork, sample: Tensor) -> Tensor:
    try:
        images = wrapper.inputs(sample)
    except Exception as error:
        raise MIAError(f"--data.transform {wrapper.form.transform}: calling it failed: {first_line(error)}") from error
    if wrapper.form.transform is None:
        return images
    if not isinstance(images, Tensor) or images.ndim != sample.ndim or len(images) != len(sample):
        returned = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise MIAError(
            f"--data.transform {wrapper.form.transform}: returned {returned} for a batch of shape "
            f"{tuple(sample.shape)}; expected (B, C, H, W)"
        )
    return images


def _vectors(outputs: Tensor, count: int) -> Tensor:
    """Return outputs (N, K) or (N,) as (N, K)."""
    if not outputs.is_floating_point():
        raise MIAError(_class_numbers(outputs))
    if outputs.ndim == 1 and len(outputs) == count:
        outputs = outputs[:, None]
    if outputs.ndim != 2 or len(outputs) != count or outputs.shape[1] == 0:
        raise MIAError(
            f"the target returns shape {tuple(outputs.shape)} for {count} images, expected ({count}, classes); use a "
            "forward that returns logits"
        )
    return outputs


def _class_numbers(outputs: Tensor) -> str:
    kind = str(outputs.dtype).removeprefix("torch.")
    whole = "whole " if outputs.is_floating_point() else ""
    return (
        f"the target returns {whole}{kind} values, class numbers rather than logits; use a forward that returns one "
        "value per class, or --target.output labels for an audit by labels alone"
    )


def _check_configured(output: str, recognized: str, values: Tensor) -> None:
    single = values.shape[1] == 1
    if single != output.startswith("one_"):
        raise MIAError(
            f"--target.output {output} does not fit: the target returns {values.shape[1]} "
            f"value{'s' if values.shape[1] > 1 else ''} per image; --target.output {recognized} does"
        )
    if output == "logits" and recognized == "probabilities":
        raise MIAError(
            "--target.output logits does not fit the values, non-negative rows with a common sum of 1 or 100; "
            "--target.output probabilities does"
        )
    if {output, recognized} <= set(output_kind.BASES):
        raise MIAError(
            f"--target.output {output} does not fit the base of the values; --target.output {recognized} does"
        )
    needs_unit = output in ("probabilities", "sigmoids", "one_probability")
    if (needs_unit and bool((values < -1e-6).any())) or (output in output_kind.BASES and bool((values > 1e-6).any())):
        raise MIAError(
            f"--target.output {output} does not fit the values, which range from {float(values.min()):.3g} to "
            f"{float(values.max()):.3g}; --target.output {recognized} does"
        )
