"""Networks of other libraries: `timm:NAME`, and Hugging Face folders with `config.json` and `model.safetensors`."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mia_lightning.errors import MIAError, printable, suggest
from mia_lightning.runtime.extras import require
from mia_lightning.runtime.library_noise import quiet_logger
from mia_lightning.security.open import open_regular
from mia_lightning.targets.imported import first_line

TIMM, TRANSFORMERS = "timm:", "transformers:"

CONFIG, WEIGHTS = "config.json", "model.safetensors"

LARGEST = 16 << 20
"""Bytes of a config.json."""


def is_library(architecture: str) -> bool:
    """Whether a name is of a library's network rather than of a class or function of the user's."""
    return architecture.startswith((TIMM, TRANSFORMERS))


def build(
    architecture: str, num_classes: int | None, weights: Mapping[str, Tensor], config: Mapping[str, object]
) -> nn.Module:
    """Return an untrained network of a library; nothing is downloaded.

    Args:
        architecture: "timm:NAME", or "transformers:CLASS" with its configuration.
        num_classes: For timm.
        weights: Of the target; the channels of its images are read from the first convolution.
        config: Content of config.json, for transformers.

    Raises:
        MIAError: the library is not installed, or has no such network.
    """
    if architecture.startswith(TRANSFORMERS):
        return _of_transformers(config)
    timm, name = require("timm", "timm"), architecture.removeprefix(TIMM)
    if not timm.is_model(name):
        raise MIAError(f"--target.architecture {architecture!r} does not exist; {suggest(name, timm.list_models())}")
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    first = next((tensor for tensor in weights.values() if tensor.ndim == 4), None)
    if first is not None and first.shape[1] == 1:  # gray images; deeper kernels of one channel are depthwise
        options["in_chans"] = 1
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **options)
    except Exception as error:
        raise MIAError(f"--target.architecture {architecture}: calling it failed: {first_line(error)}") from error
    return network


def _of_transformers(config: Mapping[str, object]) -> nn.Module:
    transformers = require("transformers", "huggingface")
    try:
        settings = transformers.AutoConfig.for_model(**config)
        network: nn.Module = transformers.AutoModelForImageClassification.from_config(settings)
    except Exception as error:
        raise MIAError(
            f"{CONFIG}: transformers {transformers.__version__} cannot build its network for image classification "
            f"({first_line(error)})"
        ) from None
    return network


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of Hugging Face."""
    return os.path.isfile(path / CONFIG)  # False for names that are too long, where Path.is_file raises


def load_folder(folder: Path) -> tuple[nn.Module, str, dict[str, object]]:
    """Return the network, the architecture and the configuration of a Hugging Face folder.

    Code that the folder names or contains is never executed, and no pickle is opened.

    Raises:
        MIAError: config.json is damaged or names code of its own, there is no model.safetensors, or its weights are not
            all of the network's.
    """
    if not (folder / WEIGHTS).is_file():
        raise MIAError(
            f"{folder.name}: has a {CONFIG} but no {WEIGHTS}; save it again by model.save_pretrained(folder), which "
            "writes safetensors (in one file: max_shard_size='100GB')"
        )
    config = _config(folder)
    transformers = require("transformers", "huggingface")
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    try:
        with quiet_logger("transformers", logging.CRITICAL):
            network, info = transformers.AutoModelForImageClassification.from_pretrained(
                folder, output_loading_info=True, **options
            )
    except Exception as error:
        raise MIAError(
            f"{folder.name}: transformers {transformers.__version__} cannot load it for image classification "
            f"({first_line(error)}); save it again by model.save_pretrained(folder)"
        ) from None
    missing = [*map(str, info["missing_keys"]), *map(str, info["mismatched_keys"])]
    if missing:
        raise MIAError(
            f"{folder.name}: {WEIGHTS} lacks {printable(missing[0], 80)} ({len(missing)} such tensors), or has it in "
            f"another shape; its {CONFIG} is of another network"
        )
    return network, f"{TRANSFORMERS}{type(network).__name__}", config


def _config(folder: Path) -> dict[str, object]:
    try:
        with open_regular(folder / CONFIG) as file:
            config: dict[str, object] = json.loads(file.read(LARGEST))
        is_known = "model_type" in config
    except (ValueError, TypeError, RecursionError):
        is_known = False
    if not is_known:
        raise MIAError(f"{folder.name}: its {CONFIG} is not that of a model of transformers; save it again")
    if "auto_map" in config or (folder / "adapter_config.json").exists():
        raise MIAError(
            f"{folder.name}: refused, it names code or adapters of its own; merge them into the model, or give "
            "--target.architecture package.module:function"
        )
    return config
