"""Requirements of signals, scores and attacks, checked against the configuration before any work.

Signals and scores are evaluated on a small synthetic sample with the configured number of views and reference models:
what fails or is constant there fails or is constant on any data.
"""

import errno
import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import ExtractionConfig, RunConfig
from mia_lightning.config.values import option_types
from mia_lightning.errors import MIAError, suggest
from mia_lightning.outputs.access import restrict
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.references.config import ReferencesConfig, column_of
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.signals import build_table, find_signal

RECORDS, CLASSES, FEATURES, GRADIENT_NORMS = 400, 10, 6, 4
"""Size of the synthetic sample."""

FILE_COLUMNS = ("id", "split", "membership", "fold", "score", "probability")
"""Columns of scores.csv that are not attacks."""

Columns = dict[str, NDArray[np.floating]]


def check_requirements(config: RunConfig, *, multi_label: bool = False) -> None:
    """Check every signal, score and attack against the configuration, without reading a file.

    Args:
        config: The run.
        multi_label: Whether the records have several labels, for which fewer signals are defined.

    Raises:
        MIAError: a name that is unknown or used twice, an attack that reads a column that will not exist, or a signal
            or score that the number of views or reference models makes constant or impossible; with the option that
            resolves it.
    """
    if config.access != "references" and (config.references.wanted or config.extraction.gradients):
        option = "--references.count" if config.references.wanted else "--extraction.gradients"
        raise MIAError(f"--access {config.access} has neither reference models nor gradients; leave out {option}")
    if config.evaluation.targets is not None and config.references.sets:
        raise MIAError(
            "--evaluation.targets takes the models of --references.imported alone; leave out references.sets"
        )
    if config.evaluation.targets is not None and config.references.training.start == "target":
        raise MIAError(
            "--evaluation.targets takes reference models as targets, but --references.training.start target makes them "
            "copies of one target; leave one of the two out"
        )
    signals = _signal_columns(config, config.extraction.queries, multi_label)
    if clash := set(signals) & set(config.references.all_scores):
        raise MIAError(f"score {min(clash)!r} has the same name as a signal; give it another name")
    scores = _score_columns(config)
    for name in config.attacks:
        if name in signals:
            raise MIAError(f"attack {name!r} has the same name as a signal; give it another name")
        if name in scores:
            raise MIAError(f"attack {name!r} has the same name as a reference score's column; rename one")
        if name in FILE_COLUMNS:
            raise MIAError(f"attack {name!r} has the same name as a column of scores.csv; rename it")
    _check_attacks(config, signals, scores)
    _check_constant(config, signals, scores)


def _check_attacks(config: RunConfig, signals: Mapping[str, object], scores: Mapping[str, object]) -> None:
    """Check that each attack reads signals, scores and earlier attacks only."""
    earlier: list[str] = []
    for name, attack in config.attacks.items():
        for pattern in attack.required_columns():
            if pattern in earlier or any(fnmatchcase(column, pattern) for column in (*signals, *scores)):
                continue
            read = f"attack {name!r} reads {pattern!r}"
            if pattern in config.attacks:
                raise MIAError(f"{read}, which is not an earlier attack; configure {pattern!r} before it")
            hint = suggest(pattern, [*signals, *scores, *earlier], see="")
            raise MIAError(f"{read}, neither a signal of this run nor an earlier attack; {hint}")
        earlier.append(name)


def _check_constant(config: RunConfig, signals: Columns, scores: Columns) -> None:
    """Check that no signal or score that is named is constant."""
    read = {column for attack in config.attacks.values() for column in attack.required_columns()}
    named = read | set(config.signals.names)
    for name, values in signals.items():
        if name in named and _is_constant(values):
            queries: int = config.extraction.queries
            cure = next((q for q in _larger(queries) if not _is_constant(_signal_columns(config, q)[name])), None)
            raise MIAError(_constant(f"signal {name!r}", queries, cure, "extraction.queries"))
    from mia_lightning.references.sets import in_set

    for name, values in scores.items():
        if (name in read or name in config.references.all_scores) and _is_constant(values):
            set_name, options = next(
                (each, options)
                for each, options in reversed(config.references.by_set.items())
                if any(name.startswith(column_of(each, score)) for score in options.scores)
            )
            queries = options.queries or config.extraction.queries
            larger = ((q, _score_columns(config, q).get(name, values)) for q in _larger(queries))
            cure = next((q for q, column in larger if not _is_constant(column)), None)
            option = in_set("references.queries", set_name) if options.queries else "extraction.queries"
            raise MIAError(_constant(f"score {name!r}", queries, cure, option))


def _constant(what: str, queries: int, cure: int | None, option: str) -> str:
    views = "1 view" if queries == 1 else f"{queries} views"
    remedy = "leave it out" if cure is None else f"use --{option} {cure}, or leave it out"
    return f"{what} is the same for every record with {views} per record; {remedy}"


def _larger(queries: int) -> list[int]:
    """Return the numbers of views above this one, ascending."""
    return [choice for choice in sorted(get_args(option_types(ExtractionConfig)["queries"])) if choice > queries]


def _is_constant(values: NDArray[np.floating]) -> bool:
    return bool(np.ptp(values, axis=0).max() <= 1e-12)


def _signal_columns(config: RunConfig, queries: int, multi_label: bool = False) -> Columns:
    """Return the signals of the synthetic sample."""
    rng = np.random.default_rng(0)
    sample = Outputs(
        logits=rng.normal(size=(RECORDS, queries, CLASSES)).astype(np.float32),
        features=rng.normal(size=(RECORDS, FEATURES)).astype(np.float32),
        gradient_norms=rng.uniform(1, 2, (RECORDS, GRADIENT_NORMS * config.extraction.gradients)).astype(np.float32),
        labels=rng.integers(0, 2, (RECORDS, CLASSES)) if multi_label else rng.integers(0, CLASSES, RECORDS),
    )
    sample = restrict(sample, config.access)
    table = build_table(sample, names=config.signals.names, query_reduction=config.signals.query_reduction)
    return dict(table.columns)


def signal_needs(config: RunConfig) -> dict[str, str | None]:
    """Return the field of `Outputs` beyond logits that each signal of a run is computed from, None for logits."""
    signals = {name: find_signal(name) for name in _signal_columns(config, config.extraction.queries)}
    return {name: None if signal is None else signal.needs for name, signal in signals.items()}


def _score_columns(config: RunConfig, queries: int | None = None) -> Columns:
    """Return the columns of the reference scores of every set on the synthetic sample."""
    by_set = config.references.by_set
    if config.references.scores and "" not in by_set:
        first = next(iter(config.references.scores))
        raise MIAError(
            f"references.scores names {first!r} but there are no references; set --references.count, or leave the "
            "scores out"
        )
    if not config.references.all_scores:
        return {}
    from mia_lightning.references.sets import columns_of_sets

    samples = {name: _sample(options, config, queries) for name, options in by_set.items()}
    return dict(columns_of_sets(config.references, samples))


def _sample(references: ReferencesConfig, config: RunConfig, queries: int | None) -> ReferenceOutputs:
    """Return synthetic phi under the models of one set."""
    from mia_lightning.references.splits import assign

    rng = np.random.default_rng(0)
    count = references.count or 16  # of imported reference outputs the number is in the file
    member = rng.permutation(np.repeat(np.array([0, 1], np.int8), RECORDS // 2))
    drawn = assign(references.scheme, count, member, private=0, seed=config.seed, released=references.anchored_release)
    shape = (RECORDS, queries or references.queries or config.extraction.queries)
    return ReferenceOutputs(
        target=rng.normal(size=shape).astype(np.float32),
        references=rng.normal(size=(count, *shape)).astype(np.float32),
        keep=drawn.keep,
        labels=rng.integers(0, CLASSES, RECORDS),
        num_classes=CLASSES,
        drawn=drawn.drawn,
    )


def check_folders(folders: Iterable[tuple[str, Path]]) -> None:
    """Check that folders can be created or written, without creating them.

    Args:
        folders: The option that names each, and the folder.

    Raises:
        MIAError: a file is in the way, or the nearest existing folder is not writable.
    """
    for option, folder in folders:
        nearest = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), Path("/"))
        if not nearest.is_dir():
            raise MIAError(f"--{option} {folder}: {nearest.name} is not a folder; name another one")
        if not os.access(nearest, os.W_OK | os.X_OK):
            is_fixed = hasattr(os, "statvfs") and os.statvfs(nearest).f_flag & os.ST_RDONLY
            reason = os.strerror(errno.EROFS if is_fixed else errno.EACCES)
            raise MIAError(f"--{option} {folder}: cannot be written ({reason}); name another one")
