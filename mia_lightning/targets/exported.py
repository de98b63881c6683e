"""`torch.export` programs (`.pt2`) as targets."""

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from mia_lightning.errors import MIAError
from mia_lightning.runtime.library_noise import quiet_logger
from mia_lightning.security.archives import check_zip, is_zip
from mia_lightning.security.exported_programs import vetted_archive
from mia_lightning.targets.program_graph import describe

_DYNAMIC = "export it with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"


def is_program(path: Path) -> bool:
    """Whether the file, by its content, is an archive of `torch.export`, of this or an earlier layout."""
    if not path.is_file() or not is_zip(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            last = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # damaged: a checkpoint's reader reports how
        return False
    return bool({"archive_format", "serialized_exported_program.json"} & last)


class Program(nn.Module):
    """An exported program as an ordinary module: it allows `eval()`, can be copied, and returns its features."""

    def __init__(self, traced: fx.GraphModule, image_shape: tuple[int | None, ...]) -> None:
        super().__init__()
        self.traced = traced
        """Images to (logits, features), or to logits alone where no linear operation ends the program."""
        self.image_shape = image_shape
        """(C, H, W) it was exported for, None where any size goes."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) for images (B, C, H, W)."""
        return self.with_features(images)[0]

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes) and the input of the last linear operation (B, D), or D = 0."""
        outputs = self.traced(images)
        logits, features = outputs if isinstance(outputs, tuple) else (outputs, outputs[:, :0])
        return logits, features.flatten(1)


def read_program(path: Path) -> tuple[Program, bytes]:
    """Return an exported program and its description; nothing in the file is executed (see `vetted_archive`).

    Raises:
        MIAError: the file is broken, needs to run code, or is not a program from a dynamic batch of images to logits.
    """
    check_zip(path)
    archive = vetted_archive(path)
    try:
        with torch.random.fork_rng(devices=[]), quiet_logger("torch.export", logging.CRITICAL):  # a traceback each
            exported = torch.export.load(archive).module(check_guards=False)
    except Exception as error:
        again = "export it again with torch.export.save and the installed version"
        raise MIAError(f"{path.name}: torch {torch.__version__} cannot put the program together; {again}") from error
    network, images, logits = _plain(exported, path.name)
    if len(images) < 2 or len(logits) != 2:
        raise MIAError(
            f"{path.name}: maps shape {_words(images)} to {_words(logits)}, "
            "expected images (B, C, H, W), or other inputs (B, ...), to logits (B, classes)"
        )
    if images[0] is not None or logits[0] is not None:
        raise MIAError(f"{path.name}: was exported for batches of exactly {images[0] or logits[0]}; {_DYNAMIC}")
    if logits[1] is None:
        raise MIAError(f"{path.name}: its number of classes is dynamic, expected a fixed one; {_DYNAMIC}")
    try:
        description = describe(network, image_shape=images[1:], classes=logits[1])
    except ValueError as error:
        raise MIAError(
            f"{path.name}: {error}, which no program of images needs; export plain tensor operations"
        ) from error
    return Program(network, images[1:]).eval(), description


def _plain(exported: Any, source: str) -> tuple[fx.GraphModule, tuple[int | None, ...], tuple[int | None, ...]]:
    """Return a module `images -> (logits, features)` or `-> logits`, and the shapes of images and logits.

    A dynamic size is None. Traces of symbolic shapes are dropped, so that the module can be copied and pickled.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(exported.graph, copies)
    while isinstance(result, (tuple, list)) and len(result) == 1:
        result = result[0]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1 or not isinstance(result, fx.Node):
        raise MIAError(f"{source}: expected a program from one tensor of images to one tensor of logits")
    shapes = _sizes(inputs[0]), _sizes(result)
    features = _before_head(result)
    graph.output(result if features is None else (result, features))
    for node in graph.nodes:
        node.meta = {}
    network = fx.GraphModule(exported, graph).float().eval().requires_grad_(False)
    return network, *shapes


def _before_head(node: fx.Node) -> fx.Node | None:
    """Return the input of the last linear operation, looking back through element-wise ones, or None."""
    aten = torch.ops.aten
    while node.op == "call_function":
        position = {aten.linear.default: 0, aten.addmm.default: 1, aten.mm.default: 0}.get(node.target)  # type: ignore[call-overload]
        if position is not None:
            features = node.args[position]
            return features if isinstance(features, fx.Node) else None
        if len(node.all_input_nodes) != 1:
            break
        node = node.all_input_nodes[0]
    return None


def _sizes(node: fx.Node) -> tuple[int | None, ...]:
    value = node.meta["val"]
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _words(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
