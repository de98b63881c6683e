"""Checks of a target on images of the records' shape."""

import torch
from torch import Tensor, nn

from mia_lightning.errors import MIAError, reason
from mia_lightning.targets.base import Target
from mia_lightning.targets.exported import Program
from mia_lightning.targets.wrapper import TargetNetwork, unwrap


def check(target: Target, image_shape: tuple[int, ...]) -> None:
    """Probe the target with two black images or rows of zeros; see `mia_lightning.targets.check_fits`."""
    channels, is_image = image_shape[0], len(image_shape) == 3
    size = f"{'images' if is_image else 'inputs'} of shape {'x'.join(map(str, image_shape))}"
    if isinstance(unwrap(target.network), Program):
        _check_fixed_size(target.network, image_shape)
    parameter = next(target.network.parameters(), torch.empty(0))
    try:
        dtype = torch.int64 if target.input_dtype == "int64" and not is_image else parameter.dtype
        with torch.inference_mode():
            logits = target.network(torch.zeros(2, *image_shape, device=parameter.device, dtype=dtype))
    except Exception as error:
        if is_image and (expected := image_channels(target.network)) not in (None, channels):
            raise MIAError(_channel_sentence(target, channels, expected)) from error
        linear = next((module for module in target.network.modules() if isinstance(module, nn.Linear)), None)
        if len(image_shape) == 1 and linear is not None and linear.in_features != channels:
            raise MIAError(
                f"the records have {channels} values each, but the target ({target.architecture}) takes "
                f"{linear.in_features}; leave out columns that it was not trained on: --data.columns '{{NAME: ignore}}'"
            ) from error
        raise MIAError(f"the target ({target.architecture}) cannot take {size}: {reason(error)}") from error
    _check_logits(target, logits, size)


def _channel_sentence(target: Target, channels: int, expected: int | None) -> str:
    sentence = f"the images have {channels} channels, but the target ({target.architecture}) takes {expected}"
    if (channels, expected) == (1, 3):
        return f"{sentence}; add --data.gray_to_rgb true"
    if (channels, expected) == (3, 1):
        return f"{sentence}; add --data.transform mia_lightning.targets.transforms:rgb_to_gray"
    return sentence


def _check_logits(target: Target, logits: object, size: str) -> None:
    if not isinstance(logits, Tensor):
        raise MIAError(f"the target returns a {type(logits).__name__}, expected one tensor of logits; wrap its forward")
    if tuple(logits.shape) != (2, target.num_classes):
        raise MIAError(
            f"the target returns shape {tuple(logits.shape)} for two {size}, expected (2, {target.num_classes}); "
            "give --target.num_classes, or a forward that returns logits"
        )
    if not torch.isfinite(logits).all():
        raise MIAError(
            f"the target returns NaN or infinite logits for two black {size}; its weights are damaged, or its "
            "forward masks classes or divides by zero"
        )


def image_channels(network: nn.Module) -> int | None:
    """Return the channels of the first convolution, read from the weights, of traced networks too; None without one."""
    kernel = next((parameter for parameter in network.parameters() if parameter.ndim == 4), None)
    grouped = next((module.groups for module in network.modules() if isinstance(module, nn.Conv2d)), 1)
    return None if kernel is None else int(kernel.shape[1]) * grouped


def _check_fixed_size(network: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Compare with the sizes a program was exported for: another size may run and still be wrong."""
    program = unwrap(network)
    assert isinstance(program, Program)
    side = network.form.resize if isinstance(network, TargetNetwork) else None
    shape = image_shape if side is None else (image_shape[0], side, side)
    sizes = zip(program.image_shape, shape, strict=False)
    if len(shape) != len(program.image_shape) or any(size not in (None, given) for size, given in sizes):
        fixed = "x".join("any" if size is None else str(size) for size in program.image_shape)
        given = "x".join(map(str, shape))
        is_square = len(program.image_shape) == 3 and program.image_shape[1] == program.image_shape[2]
        hint = "; --data.resize N resizes them" if is_square and len(image_shape) == 3 else ""
        raise MIAError(f"the program was exported for images of shape {fixed}, but the images are {given}{hint}")
