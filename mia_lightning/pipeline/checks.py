"""The run, from records to figures: reads like the README."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError, suggest
from mia_lightning.records.duplicates import duplicate_notes, find_duplicates
from mia_lightning.records.records import UNKNOWN, Records, align_class_names, check_disjoint, separate_ids

if TYPE_CHECKING:
    from mia_lightning.targets.base import Target


def check_names(config: RunConfig) -> None:
    """Check every name of the configuration that does not need a file to be read.

    Raises:
        MIAError: the public records are not named, an attack bears the name of a signal, or an attack reads what is
            neither a signal of the run nor an earlier attack.
    """
    from mia_lightning.signals import expand_names

    if config.data.public is None:
        raise MIAError("--data.public is not given; name the records whose membership is known")
    signals = expand_names(config.signals.names)
    signals += _score_names(config, signals)
    if clash := set(signals) & set(config.attacks):
        raise MIAError(f"attack {min(clash)!r} bears the name of a signal; give it another name")
    earlier: list[str] = []
    for name, attack in config.attacks.items():
        for pattern in attack.required_columns():
            if pattern not in earlier and not _is_known(pattern, signals, config.references.scores):
                hint = suggest(pattern, [*signals, *earlier])
                raise MIAError(
                    f"attack {name!r} reads {pattern!r}, neither a signal of this run nor an earlier attack; {hint}"
                )
        earlier.append(name)


def _score_names(config: RunConfig, signals: list[str]) -> list[str]:
    """Return the names of the scores from references, checked."""
    names = list(config.references.scores)
    if names and not config.references.wanted:
        raise MIAError(
            f"references.scores names {names[0]!r} but there are no references; set --references.count, or leave the "
            "scores out"
        )
    if clash := set(signals) & set(names):
        raise MIAError(f"score {min(clash)!r} bears the name of a signal; give it another name")
    return names


def _is_known(pattern: str, signals: list[str], scores: Mapping[str, object]) -> bool:
    """Whether a pattern may pick a column; which suffixes a score has is only known once it is computed."""
    return any(fnmatchcase(known, pattern) for known in signals) or any(
        pattern.startswith(f"{name}_") for name in scores
    )


def load_records(config: RunConfig) -> tuple[Records, Records | None]:
    """Read both halves and check them against each other."""
    from mia_lightning.records.readers import read_records
    from mia_lightning.targets.image_scale import check_scale, gray_to_rgb

    assert config.data.public is not None
    public = read_records(config.data.public, reader=config.data.reader, columns=config.data.columns)
    known = np.unique(public.membership[public.membership != UNKNOWN])
    if len(known) < 2:
        found = {0: "only non-members", 1: "only members"}[int(known[0])] if len(known) else "no known membership"
        raise MIAError(f"{public.source}: holds {found}; the public records must hold members and non-members")
    public = gray_to_rgb(public) if config.data.gray_to_rgb else public
    if config.data.private is None:
        check_scale(public, None, config.data.mean, config.data.std)
        return public, None
    private = read_records(config.data.private, reader=config.data.reader, columns=config.data.columns)
    private = gray_to_rgb(private) if config.data.gray_to_rgb else private
    public, private = align_class_names(*separate_ids(public, private))
    check_disjoint(public, private)
    if public.images.shape[1:] != private.images.shape[1:]:
        raise MIAError(
            f"{public.source} holds images of shape {public.images.shape[1:]} but {private.source} of "
            f"{private.images.shape[1:]}; both halves must fit one target"
        )
    check_scale(public, private, config.data.mean, config.data.std)
    return public, private


def load_and_check_target(config: RunConfig, public: Records) -> Target:
    """Load the target and check that it takes the records' images."""
    from mia_lightning.targets import check_fits, load_target

    target = load_target(
        config.target.checkpoint,
        architecture=config.target.architecture,
        num_classes=config.target.num_classes,
        feature_layer=config.target.feature_layer,
        weights=config.target.weights,
        output=config.target.output,
        stem=config.target.stem,
        resize=config.data.resize,
        transform=config.data.transform,
        class_order=None if config.target.class_order is None else tuple(config.target.class_order),
        image_shape=public.images.shape[1:],
    )
    check_fits(target, public.images.shape[1:])
    return target


def record_notes(public: Records, private: Records | None) -> list[str]:
    """Return what has to be said of the records: rows left out, labels missing."""
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
