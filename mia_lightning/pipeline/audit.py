"""Audit: from records and target to evaluated attacks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

from mia_lightning.config.schema import RunConfig
from mia_lightning.outputs.access import restrict
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.outputs.resolution import resolution_notes
from mia_lightning.pipeline.arrays import is_arrays_only, load_arrays
from mia_lightning.pipeline.attack_results import attack_result
from mia_lightning.pipeline.checks import (
    as_target_takes,
    check_names,
    for_records,
    load_and_check_target,
    load_records,
    record_notes,
)
from mia_lightning.pipeline.model_outputs import ModelOutputs, target_facts
from mia_lightning.pipeline.requirements import check_requirements
from mia_lightning.pipeline.results import AuditResult, Clock, LoadedInputs, accuracies
from mia_lightning.pipeline.signal_notes import first_note, signal_notes
from mia_lightning.pipeline.splits import split_private, split_public
from mia_lightning.pipeline.target_checks import checked_target
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.report.filing import previous_audit
from mia_lightning.scores.crossfit import FitCallback, Reporter, cross_fit

if TYPE_CHECKING:
    from mia_lightning.references.result import References
    from mia_lightning.references.sets import SetFinished
    from mia_lightning.runtime.progress import RateCallback
    from mia_lightning.targets.base import Target

log = logging.getLogger(__name__)


def audit(config: RunConfig) -> AuditResult:
    """Attack the target and evaluate the attacks out-of-fold; only the cache of model outputs is written.

    Raises:
        MIAError: any mistake in the configuration or the files it names.
    """
    return attack_target(config, prepare(config))


def prepare(config: RunConfig) -> LoadedInputs:
    """Read and check the records and the target, and that the reference models can be built.

    Raises:
        MIAError: any mistake in the configuration or the files it names.
    """
    started = perf_counter()
    if is_arrays_only(config):
        arrays = load_arrays(config)
        split_public(config, arrays.records)
        return LoadedInputs(arrays.records, None, None, perf_counter() - started, arrays=arrays)
    check_names(config)
    previous_audit(config.report)
    log.info("reading the records")
    public, private = load_records(config)
    split_public(config, public)  # raises where there are fewer members or non-members than folds
    log.info("loading the target")
    target = load_and_check_target(config, public)
    public, private = as_target_takes(config, target, public, private)
    if not public.is_image or public.multi_hot is not None:
        config = for_records(config, public)
        check_requirements(config, multi_label=public.multi_hot is not None)
    return check_inputs(config, public, private, target, started=started)


def check_inputs(
    config: RunConfig, public: Records, private: Records | None, target: Target, *, started: float
) -> LoadedInputs:
    """Check that the reference models can be built, and the target on a sample of the records.

    Args:
        config: The run.
        public: Records of known membership.
        private: Records to be scored.
        target: The loaded target.
        started: Value of `perf_counter` at the start of the run.

    Raises:
        MIAError: references that cannot be trained, or a label that is none of the target's classes.
    """
    if config.references.wanted:
        from mia_lightning.references.checks import check_references
        from mia_lightning.references.sets import options_of, seed_of

        for name, options in config.references.by_set.items():
            with options_of(name):
                check_references(
                    options,
                    target=target,
                    public=public,
                    private=private,
                    extraction_queries=config.extraction.queries,
                    seed=seed_of(config.seed, name),
                    ray_address=config.ray.address,
                )
    log.info("checking the target on known members")
    target, reading = checked_target(config, target, public, private)
    return LoadedInputs(public, private, target, perf_counter() - started, reading)


def attack_target(
    config: RunConfig,
    prepared: LoadedInputs,
    *,
    progress: FitCallback | None = None,
    report: Reporter | None = None,
    on_reference: SetFinished | None = None,
    on_rate: RateCallback | None = None,
) -> AuditResult:
    """Extract, compute signals, fit and score the attacks out-of-fold, evaluate.

    Args:
        config: The run.
        prepared: From `prepare`; consumed: its images are released.
        progress: Callback invoked before each fit.
        report: Callback invoked after each epoch of an attack that has epochs.
        on_reference: Callback invoked with each reference and `set_name` when it is trained.
        on_rate: Callback invoked with the rate of the extraction every few seconds.
    """
    clock, config = Clock(load=prepared.seconds), for_records(config, prepared.public)
    outputs = query_models(config, prepared, clock, on_reference, on_rate)
    table = outputs.table(config)
    clock.lap("signals")
    member, fold = outputs.attacker_view()
    fitted = cross_fit(
        config.attacks, table, member, fold, seed=config.seed, progress=progress, report=report, stability=True
    )
    clock.lap("attack")
    notes = outputs.notes + signal_notes(config, table, fitted, outputs.public)
    results = {name: attack_result(config, result, outputs) for name, result in fitted.items()}
    clock.lap("evaluate")
    return AuditResult(
        config=config,
        public=outputs.public,
        private=outputs.private,
        attacks=results,
        notes=notes,
        target=outputs.target,
        reference_sets=outputs.reference_sets,
        table=table,
        seconds=clock.seconds,
        reading=prepared.reading,
        outputs=outputs.unreduced,
    )


def query_models(
    config: RunConfig,
    prepared: LoadedInputs,
    clock: Clock,
    on_reference: SetFinished | None = None,
    on_rate: RateCallback | None = None,
) -> ModelOutputs:
    """Query the target and any reference models on all records, and assign folds."""
    public, private, target = prepared.public, prepared.private, prepared.target
    if prepared.arrays is not None:
        arrays = prepared.arrays
        stored = arrays.model_outputs(config, split_public(config, arrays.records, arrays.outputs.content_order()))
        clock.lap("references")
        return stored
    assert target is not None
    config = for_records(config, public)
    notes = record_notes(public, private) + list(target.notes)
    count = len(public) + (0 if private is None else len(private))
    log.info("querying the target: %s records, views per record: %d", f"{count:,}", config.extraction.queries)
    outputs, private_outputs = _extract(config, public, private, target, on_rate)
    clock.lap("extract")
    notes += resolution_notes(outputs, public.membership)
    facts = target_facts(target, outputs, public)
    split, visible = split_public(config, public, outputs.content_order()), restrict(outputs, config.access)
    note = first_note(visible, split)
    if note is not None:
        log.info("%s", note)
    sets = _references(config, prepared, outputs, private_outputs, facts, on_reference)
    clock.lap("references")
    return ModelOutputs(
        public=split,
        private=split_private(private),
        outputs=visible,
        private_outputs=None if private_outputs is None else restrict(private_outputs, config.access),
        unreduced=outputs,
        target=facts,
        reference_sets=sets,
        notes=notes + [note for each in sets.values() for note in each.notes],
    )


def run_helper_process(config: RunConfig) -> NoReturn:
    """Run a worker process's part of the extraction, and exit (SystemExit)."""
    query_models(config, prepare(config), Clock())
    raise SystemExit(0)


def _extract(
    config: RunConfig, public: Records, private: Records | None, target: Target, on_rate: RateCallback | None
) -> tuple[Outputs, Outputs | None]:
    from mia_lightning.outputs.extraction import extract
    from mia_lightning.outputs.request import ExtractionRequest

    outputs = extract(
        ExtractionRequest(
            records=Splits(public, private),
            target=target,
            mean=config.data.mean,
            std=config.data.std,
            queries=config.extraction.queries,
            gradients=config.extraction.gradients,
            hardware=config.hardware,
            store=store_folder(config),
            views=config.extraction.views,
            on_rate=on_rate,
        )
    )
    return outputs.public, outputs.private


def _references(
    config: RunConfig,
    prepared: LoadedInputs,
    outputs: Outputs,
    private_outputs: Outputs | None,
    facts: Mapping[str, object],
    on_reference: SetFinished | None,
) -> dict[str, References]:
    """Return the references of each set of the run."""
    if not config.references.wanted:
        return {}
    assert prepared.target is not None
    from mia_lightning.references.prepare import ReferenceInputs
    from mia_lightning.references.remote import is_address
    from mia_lightning.references.sets import load_or_train_sets

    on_members, on_non_members = accuracies(facts)
    audited = ReferenceInputs(
        public=prepared.public,
        private=prepared.private,
        target=prepared.target,
        outputs=outputs,
        private_outputs=private_outputs,
        mean=config.data.mean,
        std=config.data.std,
        accuracy_on_members=on_members,
        accuracy_on_non_members=on_non_members,
        views=config.extraction.views,
    )
    return load_or_train_sets(
        config.references,
        audited,
        store=store_folder(config),
        seed=config.seed,
        ray_address=config.ray.address,
        remote=config.cache_dir if is_address(config.cache_dir) else None,
        on_reference=on_reference,
    )


def store_folder(config: RunConfig) -> Path:
    """Return the folder of cached model outputs and reference models on this machine."""
    from mia_lightning.references.remote import is_address

    local = None if is_address(config.cache_dir) else config.cache_dir
    return Path(local or Path(config.output).parent / ".store")
