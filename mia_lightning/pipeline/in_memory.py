"""The one call: an audit of a model in memory on records in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.command_line import load_config
from mia_lightning.config.files import overlay, to_mapping
from mia_lightning.config.schema import RunConfig
from mia_lightning.config.shipped import read_configurations
from mia_lightning.errors import MIAError
from mia_lightning.pipeline import audit as configured
from mia_lightning.pipeline.audited import Audit
from mia_lightning.pipeline.progress import FitProgress
from mia_lightning.pipeline.requirements import check_requirements
from mia_lightning.pipeline.results import AuditResult
from mia_lightning.pipeline.splits import split_public
from mia_lightning.records.features import Features
from mia_lightning.records.halves import align_multi_hot
from mia_lightning.records.in_memory import Batch, read_side, with_one_coding
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.records.sides import check_alike, is_channels_last, to_records, vocabulary
from mia_lightning.records.splits import Splits
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.runtime.library_noise import quiet_lightning
from mia_lightning.targets.base import TargetForm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mia_lightning.targets.base import Target

SAMPLES = 32
"""Records of each side from which the kind of output is read."""

FEWEST, CALIBRATION = 4, ("calibration", "DifficultyCalibration")
"""References that LiRA needs for two on each side of every record, and the score of fewer."""


@overload
def audit(model: RunConfig) -> AuditResult: ...


@overload
def audit(
    model: object,
    members: object,
    non_members: object,
    *,
    unknown: object = None,
    references: int | Mapping[str, Any] = 0,
    output: str = "auto",
    label: str | Sequence[str] | None = None,
    untrained: Callable[[], nn.Module] | None = None,
    config: str | Path | Sequence[str | Path] = (),
    **options: Any,
) -> Audit: ...


def audit(
    model: object,
    members: object = None,
    non_members: object = None,
    *,
    unknown: object = None,
    references: int | Mapping[str, Any] = 0,
    output: str = "auto",
    label: str | Sequence[str] | None = None,
    untrained: Callable[[], nn.Module] | None = None,
    config: str | Path | Sequence[str | Path] = (),
    **options: Any,
) -> Audit | AuditResult:
    """Attack a model in memory and evaluate the attacks out-of-fold; no file is needed or left behind.

    The model receives the records as they are given: floating-point values untouched, uint8 images scaled to [0, 1] for
    a network and as uint8 for a function. Figures are those of the command line on the same input and options.

    Args:
        model: An `nn.Module` (a `LightningModule` included), an object with `predict_proba`, or a function from a batch
            to logits, probabilities or labels. Or a `RunConfig` alone, which names files; the result is then an
            `AuditResult`.
        members: Records of the model's training: a tensor, an array, a pandas, Polars or pyarrow table, a `Dataset`, a
            `DataLoader`, or a tuple (inputs, labels). Images are (N, C, H, W) or (N, H, W, C).
        non_members: Records that the model was not trained on, of the same form.
        unknown: Records to be scored, whose membership is unknown.
        references: Number of reference models to train from the network's architecture, or the options of
            `references` such as `{"count": 8, "training": {"epochs": 30}}`.
        output: Kind of the model's output, "auto" to recognize it from the values, as `--target.output`.
        label: Name of the label in tables and in data sets whose items are mappings, or names of several columns of 0
            and 1.
        untrained: Returns the network with its first weights, for reference models of a network whose layers cannot be
            reset.
        config: Name of a shipped configuration or path of a YAML file, or several, such as "no_reference".
        options: Further options by section, as in YAML: `seed=1, extraction={"queries": 18}`.

    Raises:
        MIAError: any mistake in the model, the records or the options, in the command line's words.
    """
    if isinstance(model, RunConfig):
        if members is not None or non_members is not None:
            raise MIAError("a RunConfig names its records; pass it alone, or a model with members and non_members")
        return configured.audit(model)
    from mia_lightning.targets.inputs import check_missing

    started = perf_counter()
    if members is non_members and members is not None:
        raise MIAError("members and non_members are the same object; give records that the model was not trained on")
    given = {"members": members, "non_members": non_members, "unknown": unknown}
    sides = {
        name: _with_channels(model, read_side(data, name, label=label))
        for name, data in given.items()
        if data is not None or name != "unknown"
    }
    check_alike(sides)
    sides = with_one_coding(sides)
    records = sum(map(len, sides.values()))
    settings = _configuration(sides["members"], records, references, output, config, options)
    check_requirements(settings)
    public, private = _records(model, sides)
    if public.multi_hot is not None:
        check_requirements(settings, multi_label=True)
    split_public(settings, public)  # raises where there are fewer records of a side than folds
    with TemporaryDirectory(prefix="mia-lightning-") as folder:
        settings.cache_dir = folder
        with quiet_lightning():
            target = _target(model, sides, public, output, settings, untrained)
            for half in (public, *([] if private is None else [private])):
                if half.features is not None:
                    check_missing(target, half, sides["members"].features or replace(half.features, in_memory=True))
            prepared = configured.check_inputs(settings, public, private, target, started=started)
        with FitProgress(len(settings.attacks) * settings.evaluation.folds) as progress:
            result = configured.attack_target(settings, prepared, progress=progress)
        settings.cache_dir = None
    return Audit(result, prepared)


def _configuration(
    side: Batch,
    records: int,
    references: int | Mapping[str, Any],
    output: str,
    config: str | Path | Sequence[str | Path],
    options: Mapping[str, Any],
) -> RunConfig:
    """Return the options of the run; where references have no scores, one is added with its threshold attack."""
    files = (config,) if isinstance(config, str | Path) else tuple(config)
    shape = side.inputs.shape[1:]
    values: dict[str, Any] = {"target": {"output": output}, "hardware": {"devices": 1}}
    if len(shape) == 3:
        channels = shape[-1] if is_channels_last(side.inputs) else shape[0]
        values["data"] = {"mean": [0.0] * channels, "std": [1.0] * channels}
    else:
        values["extraction"] = {"queries": 1}
    chosen = overlay(read_configurations(files), {name: to_mapping(value) for name, value in options.items()})
    if isinstance(references, bool) or not isinstance(references, int | Mapping):
        raise MIAError(f"references is {references!r}; give a number, or options such as {{'count': 8}}")
    if references:
        wanted = dict(references) if isinstance(references, Mapping) else _few(references, records)
        chosen = overlay(chosen, {"references": to_mapping(wanted)})
    if chosen.get("references", {}).get("count") and not chosen["references"].get("scores"):
        name, score = ("lira", "LiRA") if chosen["references"]["count"] >= FEWEST else CALIBRATION
        chosen["references"]["scores"] = {name: {"class_path": score}}
        chosen["attacks"] = (chosen.get("attacks") or to_mapping(RunConfig().attacks)) | {
            f"{name}_threshold": {"class_path": "Threshold", "init_args": {"column": name}}
        }
    return load_config(**overlay(values, chosen))


def _few(count: int, records: int) -> dict[str, Any]:
    """Return the options of a number of references, with batches that leave eight steps to an epoch of few records."""
    _, batch = ReferenceTraining().counts()
    return {"count": count, "training": {"batch_size": max(1, min(batch, 1 << max(records // 16, 1).bit_length() - 1))}}


def _records(model: object, sides: Mapping[str, Batch]) -> tuple[Records, Records | None]:
    """Return public and private records, with labels by the model's own classes where it names them."""
    import torch

    classes = getattr(model, "classes_", None) if callable(getattr(model, "predict_proba", None)) else None
    classes = None if classes is None else list(classes)
    if isinstance(model, torch.nn.Module) or model is None:
        sides = {name: _single_precision(side) for name, side in sides.items()}
    known_sides = {name: side for name, side in sides.items() if name != "unknown"}
    public = to_records(known_sides, {"members": 1, "non_members": 0}, classes)
    if "unknown" not in sides:
        return public, None
    unknown = to_records({"unknown": sides["unknown"]}, {"unknown": UNKNOWN}, classes, first_id=len(public))
    return align_multi_hot(public, unknown)


def _with_channels(model: object, side: Batch) -> Batch:
    """Return gray uint8 images (N, H, W) for a network with an axis of channels, any other side as it is."""
    import torch

    if not isinstance(model, torch.nn.Module) or side.inputs.dtype != np.uint8 or side.inputs.ndim != 3:
        return side
    return Batch(side.inputs[:, None], side.labels, side.container, side.features)


def _single_precision(side: Batch) -> Batch:
    if side.inputs.dtype != np.float64:
        return side
    return Batch(side.inputs.astype(np.float32), side.labels, side.container, side.features)


def _target(
    model: object,
    sides: Mapping[str, Batch],
    public: Records,
    output: str,
    config: RunConfig,
    untrained: Callable[[], nn.Module] | None,
) -> Target:
    import torch

    from mia_lightning.outputs.datamodule import MembershipDataModule
    from mia_lightning.targets.in_memory import target_from
    from mia_lightning.targets.inputs import without_missing

    first = sides["members"]
    images: NDArray[Any] = public.images
    members = len(first)
    rows = [np.arange(members)[:SAMPLES], np.arange(members, len(public))[:SAMPLES]]
    data = MembershipDataModule(Splits(public), mean=config.data.mean, std=config.data.std)
    samples = [data.normalize(torch.from_numpy(without_missing(images[part]))) for part in rows]
    convert = partial(
        _as_given,
        container=first.container,
        features=first.features,
        to_uint8=images.dtype == np.uint8 and images.ndim == 4,
        channels_last=is_channels_last(first.inputs),
    )
    form = TargetForm(
        resize=config.data.resize,
        transform=config.data.transform,
        class_order=None if config.target.class_order is None else tuple(config.target.class_order),
    )
    return target_from(
        model,
        samples,
        output=output,
        convert=convert,
        classes=vocabulary(side.labels for side in sides.values()),
        features=first.features,
        form=form,
        feature_layer=config.target.feature_layer,
        untrained=untrained,
        multi_label=public.multi_hot is not None,
    )


def _as_given(batch: Tensor, *, container: str, features: Features | None, to_uint8: bool, channels_last: bool) -> Any:
    """Return a batch of the network's inputs as a function expects it: in the container of the given records."""
    if to_uint8:
        batch = (batch * 255).round().byte()
    if channels_last:
        batch = batch.permute(0, 2, 3, 1)
    if container == "tensor":
        return batch.contiguous()
    array = np.ascontiguousarray(batch.detach().cpu().numpy())
    if features is not None and container in ("pandas", "polars"):
        frame = features.frame(array)
        if container == "pandas":
            return frame
        import polars as pl

        return pl.from_pandas(frame)
    return array
