"""Checks of configuration, records and target before the first query."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.requirements import check_folders, check_requirements
from mia_lightning.records.duplicates import duplicate_notes, find_duplicates, with_copies_grouped
from mia_lightning.records.halves import align_class_names, align_inputs, align_multi_hot, check_disjoint, separate_ids
from mia_lightning.records.lazy_images import LazyImages
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.records.splits import Splits
from mia_lightning.references.remote import RemoteFolder, is_address
from mia_lightning.report.filing import check_class_names
from mia_lightning.targets import check_fits, load_target
from mia_lightning.targets.base import Target


def check_names(config: RunConfig) -> None:
    """Check the configuration as far as no file needs to be read.

    Raises:
        MIAError: the public records are not named, a signal, score or attack has a requirement that the configuration
            does not meet (see `check_requirements`), or a folder cannot be written.
    """
    if config.data.public is None:
        raise MIAError("--data.public is not given; name the records whose membership is known")
    check_requirements(config)
    cache = []
    if config.cache_dir is not None and is_address(config.cache_dir):
        RemoteFolder(config.cache_dir).check()
    elif config.cache_dir is not None:
        cache = [("cache_dir", Path(config.cache_dir))]
    check_folders([("output", Path(config.output)), *cache])


def load_records(config: RunConfig) -> tuple[Records, Records | None]:
    """Read both splits and check them against each other.

    Raises:
        MIAError: an unreadable file, only members or only non-members, ids in both splits, or images of other shapes.
    """
    from mia_lightning.records.readers import read_records
    from mia_lightning.targets.image_scale import check_scale, gray_to_rgb

    assert config.data.public is not None
    options = {"reader": config.data.reader, "columns": config.data.columns, **_image_transform(config)}
    public = read_records(config.data.public, **options)
    sides = np.unique(public.membership[public.membership != UNKNOWN])
    if len(sides) < 2:
        content = {0: "only non-members", 1: "only members"}[int(sides[0])] if len(sides) else "no known membership"
        raise MIAError(f"{public.source}: contains {content}; the public records must include members and non-members")
    check_class_names(config.report, public.labels)
    public = gray_to_rgb(public) if config.data.gray_to_rgb else public
    public = with_copies_grouped(public) if config.evaluation.group_copies else public
    if config.data.private is None:
        check_scale(public, None, config.data.mean, config.data.std)
        return public, None
    private = read_records(config.data.private, **options)
    private = gray_to_rgb(private) if config.data.gray_to_rgb else private
    public, private = align_class_names(*separate_ids(*align_multi_hot(public, private)))
    check_disjoint(public, private)
    public, private = align_inputs(public, private)
    check_scale(public, private, config.data.mean, config.data.std)
    return public, private


def _image_transform(config: RunConfig) -> dict[str, Any]:
    """Return the user's transform as the readers of image files take it."""
    if (name := config.data.transform) is None:
        return {}
    from mia_lightning.targets.imported import import_callable

    return {"transform": import_callable(name, "--data.transform"), "transform_name": name}


def load_and_check_target(config: RunConfig, public: Records) -> Target:
    """Load the target and check that it accepts the records' images."""
    from mia_lightning.targets.inputs import sample_of

    if config.data.resize is not None and not public.is_image:
        raise MIAError(f"--data.resize {config.data.resize}: {public.source} has {public.described}; leave it out")
    target = load_target(
        config.target.checkpoint,
        architecture=config.target.architecture,
        num_classes=config.target.num_classes,
        feature_layer=config.target.feature_layer,
        weights=config.target.weights,
        output=config.target.output,
        stem=config.target.stem,
        resize=config.data.resize,
        transform=None if isinstance(public.images, LazyImages) else config.data.transform,
        class_order=None if config.target.class_order is None else tuple(config.target.class_order),
        image_shape=public.images.shape[1:],
        sample=None if public.is_image else sample_of(public),
        feature_names=public.feature_names,
        categories=public.categories,
        multi_label=public.multi_hot is not None,
    )
    check_fits(target, public.images.shape[1:])
    return target


def as_target_takes(
    config: RunConfig, target: Target, public: Records, private: Records | None
) -> tuple[Records, Records | None]:
    """Return both halves with the inputs and the class numbers of the target.

    Raises:
        MIAError: a label that an estimator was not fitted on, or gradients of an estimator.
    """
    from mia_lightning.targets.estimators import EstimatorNetwork, align_labels
    from mia_lightning.targets.inputs import check_missing, converted
    from mia_lightning.targets.wrapper import unwrap

    for half in (public, private):
        if half is not None:
            check_missing(target, half)
    halves = Splits(public, private).map(lambda half: converted(half, target.input_dtype))
    network = unwrap(target.network)
    if isinstance(network, EstimatorNetwork):
        if config.extraction.gradients:
            raise MIAError("--extraction.gradients true: an estimator has no gradients; leave it out")
        if public.multi_hot is None:
            halves = halves.map(lambda half: align_labels(half, network.labels, target.architecture))
    return halves.public, halves.private


def for_records(config: RunConfig, public: Records) -> RunConfig:
    """Return the configuration with the views that the records have: one for records that are not images.

    Raises:
        MIAError: views, or gradients, that such records do not have.
    """
    if public.is_image:
        return config
    if config.extraction.views is not None:
        return config
    extraction = config.extraction
    queries = max([each.queries or 1 for each in (config.references, *config.references.sets.values())])
    if extraction.queries > 2 or queries > 2:  # 2 is the default
        option = f"--{'extraction' if extraction.queries > 2 else 'references'}.queries"
        raise MIAError(f"{option}: only images are shifted and mirrored; {public.source} has {public.described}; use 1")
    if extraction.gradients and public.images.dtype.kind != "f":
        raise MIAError(f"--extraction.gradients true: the inputs of {public.source} are whole numbers; leave it out")
    sets = {name: replace(further, queries=None) for name, further in config.references.sets.items()}
    references = replace(config.references, queries=None, sets=sets)
    return replace(config, extraction=replace(extraction, queries=1), references=references)


def record_notes(public: Records, private: Records | None) -> list[str]:
    """Return notes about the records: rows left out of fitting, missing labels."""
    notes = [note for half in (public, private) if half is not None for note in half.notes]
    notes += duplicate_notes(find_duplicates(public, private), public, private)
    if unknown := int((public.membership == UNKNOWN).sum()):
        notes.append(
            f"{public.source}: {unknown:,} of {len(public):,} records have no known membership; left out of fitting"
        )
    for records in (public, private):
        if records is not None and (missing := int((records.labels == UNKNOWN).sum())):
            notes.append(f"{records.source}: {missing:,} records have no label; the target's predicted class is used")
    return notes


def check_own_views(config: RunConfig, public: Records) -> None:
    """Try the user's function of views on a few records. Raises MIAError: see `check_views`."""
    if config.extraction.views is None:
        return
    if config.extraction.queries == 1:
        raise MIAError("--extraction.views needs views to compute; give --extraction.queries 2, 18 or 50")
    import torch

    from mia_lightning.outputs.views import check_views

    sample = torch.from_numpy(np.ascontiguousarray(public.images[:4]))
    check_views(config.extraction.views, sample.float() if public.is_image else sample, config.extraction.queries)
