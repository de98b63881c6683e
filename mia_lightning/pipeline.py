"""The run, from records to figures: reads like the README."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config import RunConfig
from mia_lightning.crossfit import NO_FOLD, Progress, Reporter, assign_folds, cross_fit, draw_hold_out
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

    held_out: NDArray[np.bool_]
    """(N,) True for public records of known membership that no fold saw (`evaluation.hold_out`)."""


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

    held_out: Evaluation | None
    """Figures on the public records that no fold saw, where there are any."""

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
    _public_half(config, public, public.labels)  # enough of each?
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
    clock = Clock(load=prepared.seconds)
    answered = ask(config, prepared, clock)
    table = answered.table(config)
    clock.lap("signals")
    member, fold = answered.visible()
    fitted = cross_fit(config.attacks, table, member, fold, seed=config.seed, progress=progress, report=report)
    clock.lap("attack")
    results = {name: attack_result(config, result.scores, result.seconds, answered) for name, result in fitted.items()}
    clock.lap("evaluate")
    return AuditResult(
        config=config,
        public=answered.public,
        private=answered.private,
        attacks=results,
        notes=answered.notes,
        target=answered.target,
        references=() if answered.references is None else answered.references.rows,
        table=table,
        evidence=None if answered.references is None else answered.references.evidence,
        seconds=clock.seconds,
    )


@dataclass(frozen=True, eq=False)
class Answered:
    """What target and references say of all records: all that signals and attacks are made from."""

    public: Half
    private: Half | None
    outputs: Outputs
    """Of the public records."""

    private_outputs: Outputs | None
    embedding: NDArray[np.float32] | None
    """(N + M, D) features from another network; None where the run names none."""

    target: Mapping[str, object]
    """As in `AuditResult`."""

    references: References | None
    """None where the run has none."""

    notes: list[str]

    def table(self, config: RunConfig) -> SignalTable:
        """Return the signals, the embedding and the scores from references of all records, public first."""
        signals = signal_table(config, self.outputs, self.private_outputs).with_columns(self.embedding_columns())
        return signals.with_columns(self.reference_columns(config))

    def embedding_columns(self) -> dict[str, NDArray[np.float32]]:
        """Return the column of the embedding, if there is one."""
        return {} if self.embedding is None else {EMBEDDING: self.embedding}

    def reference_columns(self, config: RunConfig) -> dict[str, NDArray[np.float64]]:
        """Return the columns of the scores from references."""
        if self.references is None:
            return {}
        from mia_lightning.references.evidence import reference_columns

        return reference_columns(config.references.scores, self.references.evidence)

    def visible(self) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Return membership and fold of all records, (N + M,) each, as attacks may see them.

        Private records and those held out have neither: their membership stays out of reach.
        """
        beyond = 0 if self.private is None else len(self.private.ids)
        member = np.where(self.public.held_out, np.int8(UNKNOWN), self.public.membership)
        return _extended(member, beyond, UNKNOWN), _extended(self.public.fold, beyond, NO_FOLD)


def ask(config: RunConfig, prepared: Prepared, clock: Clock) -> Answered:
    """Ask the target and, where the run has any, the references about all records, and deal the folds."""
    public, private, target = prepared.public, prepared.private, prepared.target
    notes = record_notes(public, private)
    outputs, private_outputs = _extract(config, public, private, target)
    embedding = None if config.embedding.architecture is None else _embedding(config, public, private)
    clock.lap("extract")
    facts = _target_facts(target, outputs, public.membership)
    references = _references(config, prepared, outputs, private_outputs, facts)
    clock.lap("references")
    return Answered(
        public=_public_half(config, public, outputs.labels),
        private=_private_half(private),
        outputs=outputs,
        private_outputs=private_outputs,
        embedding=embedding,
        target=facts,
        references=references,
        notes=notes + ([] if references is None else list(references.notes)),
    )


def assist(config: RunConfig) -> NoReturn:
    """Take part in the extraction of a run's first process, and end this one (SystemExit)."""
    ask(config, prepare(config), Clock())
    raise SystemExit(0)


def _public_half(config: RunConfig, public: Records, labels: NDArray[np.int64]) -> Half:
    """Deal the folds over the records that are not held out.

    Raises:
        MIAError: fewer members or non-members than folds, or none of them held out although some should be.
    """
    evaluation, member = config.evaluation, public.membership
    held_out = draw_hold_out(labels, member, share=evaluation.hold_out, seed=config.seed)
    fold = assign_folds(labels, np.where(held_out, np.int8(UNKNOWN), member), folds=evaluation.folds, seed=config.seed)
    counts = [int((held_out & (member == value)).sum()) for value in (1, 0)]
    if evaluation.hold_out and min(counts) == 0:
        raise MIAError(
            f"evaluation.hold_out {evaluation.hold_out:g} holds out {counts[0]} members and {counts[1]} non-members; "
            "raise it, or give more records of known membership"
        )
    return Half(public.ids, member, fold, held_out)


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
        store=store_folder(config),
    )


def _embedding(config: RunConfig, public: Records, private: Records | None) -> NDArray[np.float32]:
    from mia_lightning.embedding import embed

    return embed(config.embedding, public, private, hardware=config.hardware, store=store_folder(config))


def _references(
    config: RunConfig,
    prepared: Prepared,
    outputs: Outputs,
    private_outputs: Outputs | None,
    facts: Mapping[str, object],
) -> References | None:
    """Return the references of the run, None where it has none."""
    if not config.references.wanted:
        return None
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
    return find_references(config.references, audited, store=store_folder(config), seed=config.seed)


def store_folder(config: RunConfig) -> Path:
    """Return where outputs and references are kept."""
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
    nowhere = np.zeros(len(private), np.bool_)
    return Half(private.ids, private.membership, np.full(len(private), NO_FOLD, np.int8), nowhere)


def attack_result(config: RunConfig, scores: NDArray[np.float64], seconds: float, answered: Answered) -> AttackResult:
    """Calibrate and evaluate the scores of one attack over all records, (N + M,) public first."""
    from mia_lightning.calibration import cross_fit_probability

    public, fprs = answered.public, config.evaluation.fprs
    member, known, count = public.membership, public.fold != NO_FOLD, len(public.ids)
    visible, fold = answered.visible()
    probabilities = cross_fit_probability(scores, visible, fold, config.evaluation.calibration)
    held_out = public.held_out
    return AttackResult(
        public_scores=scores[:count],
        public_probabilities=probabilities[:count],
        private_scores=scores[count:],
        private_probabilities=probabilities[count:],
        public=evaluate(scores[:count][known], member[known], fprs=fprs),
        public_calibrated=evaluate(probabilities[:count][known], member[known], fprs=fprs),
        held_out=evaluate(scores[:count][held_out], member[held_out], fprs=fprs) if held_out.any() else None,
        private=_private_evaluation(scores[count:], answered.private, fprs),
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


class Clock:
    """Wall time by stage."""

    def __init__(self, **earlier: float) -> None:
        self.seconds: dict[str, float] = dict(earlier)
        self.last = perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on a stage."""
        now = perf_counter()
        self.seconds[stage], self.last = now - self.last, now
