"""The run, from records to figures: reads like the README."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config import RunConfig
from mia_lightning.crossfit import NO_FOLD, Progress, Reporter, assign_folds, cross_fit
from mia_lightning.errors import MIAError, suggest
from mia_lightning.metrics import Evaluation, evaluate
from mia_lightning.records import UNKNOWN, Records, check_disjoint
from mia_lightning.tables import Evidence, Outputs, SignalTable

if TYPE_CHECKING:
    from mia_lightning.references.evidence import References
    from mia_lightning.references.store import Row
    from mia_lightning.targets.base import Target

EMBEDDING = "embedding"
"""Column of the features from a network other than the target."""


@dataclass(frozen=True, eq=False)
class Half:
    """What is kept of one half of the records once their images are no longer needed."""

    ids: NDArray[np.int64] | NDArray[np.str_]
    """(N,) in the order of the source."""

    membership: NDArray[np.int8]
    """(N,) 1, 0 or -1 = unknown."""

    fold: NDArray[np.int8]
    """(N,) fold that held the record out; -1 = scored by the mean over all folds' models."""


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Scores of one attack, and how good they are."""

    public_scores: NDArray[np.float64]
    """(N,) out-of-fold; higher = more likely a member."""

    public_probabilities: NDArray[np.float64]
    """(N,) calibrated on the other folds' rows."""

    private_scores: NDArray[np.float64]
    """(M,) mean over the folds' models; M = 0 without private records."""

    private_probabilities: NDArray[np.float64]
    """(M,) calibrated on all out-of-fold scores of the public records."""

    public: Evaluation
    """Out-of-fold figures of the scores, on the public records of known membership."""

    public_calibrated: Evaluation
    """The same for a ranking by calibrated probability: what ties of the calibration cost."""

    private: Evaluation | None
    """Figures on the private records, where their membership is known."""

    seconds: float
    """Time spent in fitting and scoring over all folds."""


@dataclass(frozen=True, eq=False)
class AuditResult:
    """Everything a run found."""

    config: RunConfig
    public: Half
    private: Half | None
    attacks: Mapping[str, AttackResult]
    notes: list[str]
    """What the user has to know: rows left out, labels predicted, statistics computed."""

    target: Mapping[str, object]
    """Architecture, digest, accuracy on known members and non-members."""

    references: tuple[Row, ...]
    """What is known of each reference model; empty without references."""

    table: SignalTable
    """(N + M,) signals of all records, public first, with the columns of reference scores."""

    evidence: Evidence | None
    """phi of all records under the references, a memory map where it is large; None without references."""

    seconds: Mapping[str, float]
    """Wall time by stage."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that was read and checked before the work begins."""

    public: Records
    private: Records | None
    target: Target
    seconds: float


def audit(config: RunConfig) -> AuditResult:
    """Attack the target and evaluate honestly; writes nothing but the store of outputs.

    Raises:
        MIAError: any mistake in the configuration or the files it names.
    """
    return attack_target(config, prepare(config))


def prepare(config: RunConfig) -> Prepared:
    """Read and check the records and the target.

    Raises:
        MIAError: any mistake in the configuration or the files it names.
    """
    started = perf_counter()
    check_names(config)
    public, private = load_records(config)
    assign_folds(public.labels, public.membership, folds=config.evaluation.folds, seed=config.seed)  # enough of each?
    return Prepared(public, private, load_and_check_target(config, public), perf_counter() - started)


def attack_target(
    config: RunConfig, prepared: Prepared, *, progress: Progress | None = None, report: Reporter | None = None
) -> AuditResult:
    """Extract, compute signals, fit and score the attacks out-of-fold, evaluate.

    Args:
        config: The run.
        prepared: From `prepare`; not to be used again, since its images are let go.
        progress: Told of each fit before it starts.
        report: Told of each epoch of an attack that has epochs.
    """
    clock = _Clock(load=prepared.seconds)
    public, private, target = prepared.public, prepared.private, prepared.target
    notes = record_notes(public, private)
    outputs, private_outputs = _extract(config, public, private, target)
    columns: dict[str, NDArray[np.floating]] = {}
    if config.embedding.architecture is not None:
        columns[EMBEDDING] = _embedding(config, public, private)
    clock.lap("extract")

    member = public.membership
    facts = _target_facts(target, outputs, member)
    references, reference_columns = _references(config, prepared, outputs, private_outputs, facts)
    columns |= reference_columns
    notes += references.notes if references else []
    clock.lap("references")

    fold = assign_folds(outputs.labels, member, folds=config.evaluation.folds, seed=config.seed)
    halves = Half(public.ids, member, fold), _private_half(private)
    table = signal_table(config, outputs, private_outputs).with_columns(columns)
    clock.lap("signals")

    beyond = len(table) - len(member)
    fitted = cross_fit(
        config.attacks,
        table,
        _extended(member, beyond, UNKNOWN),  # private membership stays out of reach
        _extended(fold, beyond, NO_FOLD),
        seed=config.seed,
        progress=progress,
        report=report,
    )
    clock.lap("attack")
    results = {name: _result(config, result.scores, result.seconds, *halves) for name, result in fitted.items()}
    clock.lap("evaluate")
    return AuditResult(
        config=config,
        public=halves[0],
        private=halves[1],
        attacks=results,
        notes=notes,
        target=facts,
        references=references.rows if references else (),
        table=table,
        evidence=references.evidence if references else None,
        seconds=clock.seconds,
    )


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
    if config.embedding.architecture is not None:
        signals = [*signals, EMBEDDING]
    signals += _score_names(config, signals)
    if clash := set(signals) & set(config.attacks):
        raise MIAError(f"attack {min(clash)!r} bears the name of a signal; give it another name")
    earlier: list[str] = []
    for name, attack in config.attacks.items():
        for pattern in attack.reads():
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
    from mia_lightning.readers import read_records

    assert config.data.public is not None
    public = read_records(config.data.public, reader=config.data.reader)
    known = np.unique(public.membership[public.membership != UNKNOWN])
    if len(known) < 2:
        found = {0: "only non-members", 1: "only members"}[int(known[0])] if len(known) else "no known membership"
        raise MIAError(f"{public.source}: holds {found}; the public records must hold members and non-members")
    if config.data.private is None:
        return public, None
    private = read_records(config.data.private, reader=config.data.reader)
    check_disjoint(public, private)
    if public.images.shape[1:] != private.images.shape[1:]:
        raise MIAError(
            f"{public.source} holds images of shape {public.images.shape[1:]} but {private.source} of "
            f"{private.images.shape[1:]}; both halves must fit one target"
        )
    return public, private


def load_and_check_target(config: RunConfig, public: Records) -> Target:
    """Load the target and check that it takes the records' images."""
    from mia_lightning.targets import check_fits, load_target

    target = load_target(
        config.target.checkpoint,
        architecture=config.target.architecture,
        feature_layer=config.target.feature_layer,
    )
    check_fits(target, public.images.shape[1:])
    return target


def _extract(
    config: RunConfig, public: Records, private: Records | None, target: Target
) -> tuple[Outputs, Outputs | None]:
    from mia_lightning.extraction import extract

    return extract(
        public=public,
        private=private,
        target=target,
        mean=config.data.mean,
        std=config.data.std,
        queries=config.extraction.queries,
        gradients=config.extraction.gradients,
        hardware=config.hardware,
        store=_store_folder(config),
    )


def _embedding(config: RunConfig, public: Records, private: Records | None) -> NDArray[np.float32]:
    from mia_lightning.embedding import embed

    return embed(config.embedding, public, private, hardware=config.hardware, store=_store_folder(config))


def _references(
    config: RunConfig,
    prepared: Prepared,
    outputs: Outputs,
    private_outputs: Outputs | None,
    facts: Mapping[str, object],
) -> tuple[References | None, dict[str, NDArray[np.float64]]]:
    """Return the references, and the columns of their scores."""
    if not config.references.wanted:
        return None, {}
    from mia_lightning.references.evidence import reference_columns
    from mia_lightning.references.train import Audited, find_references

    audited = Audited(
        public=prepared.public,
        private=prepared.private,
        target=prepared.target,
        outputs=outputs,
        private_outputs=private_outputs,
        mean=config.data.mean,
        std=config.data.std,
        accuracy_on_members=float(str(facts["accuracy_on_members"])),
        accuracy_on_non_members=float(str(facts["accuracy_on_non_members"])),
    )
    found = find_references(config.references, audited, store=_store_folder(config), seed=config.seed)
    return found, reference_columns(config.references.scores, found.evidence)


def _store_folder(config: RunConfig) -> Path:
    return Path(config.extraction.store or Path(config.output).parent / ".store")


def record_notes(public: Records, private: Records | None) -> list[str]:
    """Return what has to be said of the records: rows left out, labels missing."""
    notes = []
    if unknown := int((public.membership == UNKNOWN).sum()):
        notes.append(
            f"{public.source}: {unknown:,} of {len(public):,} records have no known membership; left out of fitting"
        )
    for records in (public, private):
        if records is not None and (missing := int((records.labels == UNKNOWN).sum())):
            notes.append(f"{records.source}: {missing:,} records have no label; the target's predicted class is used")
    return notes


def signal_table(config: RunConfig, public: Outputs, private: Outputs | None) -> SignalTable:
    """Compute the signals of both halves in one table, public rows first."""
    from mia_lightning.signals import build_table

    names, queries = config.signals.names, config.signals.queries
    tables = [build_table(half, names=names, queries=queries) for half in (public, private) if half is not None]
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    return SignalTable(columns, np.concatenate([table.labels for table in tables]), public.num_classes)


def _private_half(private: Records | None) -> Half | None:
    if private is None:
        return None
    return Half(private.ids, private.membership, np.full(len(private), NO_FOLD, np.int8))


def _result(
    config: RunConfig, scores: NDArray[np.float64], seconds: float, public: Half, private: Half | None
) -> AttackResult:
    from mia_lightning.calibration import cross_fit_probability

    member, known, count = public.membership, public.fold != NO_FOLD, len(public.ids)
    beyond = len(scores) - count
    probabilities = cross_fit_probability(
        scores,
        _extended(member, beyond, UNKNOWN),
        _extended(public.fold, beyond, NO_FOLD),
        config.evaluation.calibration,
    )
    fprs = config.evaluation.fprs
    return AttackResult(
        public_scores=scores[:count],
        public_probabilities=probabilities[:count],
        private_scores=scores[count:],
        private_probabilities=probabilities[count:],
        public=evaluate(scores[:count][known], member[known], fprs=fprs),
        public_calibrated=evaluate(probabilities[:count][known], member[known], fprs=fprs),
        private=_private_evaluation(scores[count:], private, fprs),
        seconds=seconds,
    )


def _extended(values: NDArray[np.int8], count: int, value: int) -> NDArray[np.int8]:
    return np.append(values, np.full(count, value, np.int8))


def _private_evaluation(
    scores: NDArray[np.float64], private: Half | None, fprs: tuple[float, ...]
) -> Evaluation | None:
    """Evaluate where the private membership is known: the only place that reads it."""
    if private is None or len(np.unique(private.membership[private.membership != UNKNOWN])) < 2:
        return None
    known = private.membership != UNKNOWN
    return evaluate(scores[known], private.membership[known], fprs=fprs)


def _target_facts(target: Target, outputs: Outputs, member: NDArray[np.int8]) -> dict[str, object]:
    correct = outputs.logits[:, 0].argmax(axis=1) == outputs.labels
    return {
        "architecture": target.architecture,
        "classes": target.num_classes,
        "digest": target.digest,
        "accuracy_on_members": float(correct[member == 1].mean()),
        "accuracy_on_non_members": float(correct[member == 0].mean()),
    }


class _Clock:
    """Wall time by stage."""

    def __init__(self, **earlier: float) -> None:
        self.seconds: dict[str, float] = dict(earlier)
        self.last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.seconds[stage], self.last = now - self.last, now
