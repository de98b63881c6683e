"""Evaluation of score files and ranking of submissions.

The statistics are those of a run (`evaluation.assess`); `report.files` describes the output files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mia_lightning.errors import MIAError, suggest
from mia_lightning.evaluation.config import ScoreEvaluationConfig
from mia_lightning.pipeline.terminal import output_console, print_line
from mia_lightning.runtime.atomic import atomic_write

if TYPE_CHECKING:
    from rich.console import Console

    from mia_lightning.evaluation.assessment import Assessment
    from mia_lightning.evaluation.fraction import Fraction
    from mia_lightning.evaluation.leaderboard import Place
    from mia_lightning.policy.decision import Decision
    from mia_lightning.policy.policy import Policy
    from mia_lightning.report.contents import Report
    from mia_lightning.scores.files import ScoresFile
    from mia_lightning.scores.scored_records import ScoredRecords


def run(config: ScoreEvaluationConfig, *, overwrite: bool = False) -> Decision | None:
    """Evaluate one file of scores, or rank submissions; print, and write the output folder if one is given.

    Args:
        config: Options of the evaluation.
        overwrite: Whether an earlier run or evaluation in the output folder is removed first.

    Returns:
        The outcome of the policy, None without one.

    Raises:
        MIAError: any mistake in the options or the files they name.
    """
    console = output_console(120)
    if config.leaderboard is None:
        return _run_evaluation(config, console, overwrite)
    for option in ("policy", "unlabeled"):
        if getattr(config, option) is not None:
            raise MIAError(f"--{option} is for one file of scores; leave it out with --leaderboard")
    _run_leaderboard(config, console, overwrite)
    return None


def evaluate_file(config: ScoreEvaluationConfig, policy: Policy | None = None) -> tuple[Assessment, list[str]]:
    """Return the assessment of one file of scores, and notes about the file.

    Args:
        config: Options of the evaluation.
        policy: Decision rule whose requirements the file has to meet.

    Raises:
        MIAError: any mistake in the options or the files they name.
    """
    from mia_lightning.evaluation.assess import assess
    from mia_lightning.policy.decide import check_contents

    _check_bound(config)
    file = _read_scores(config)
    names = list(file.records.scores)
    if config.primary_attack is not None and config.primary_attack not in names:
        raise MIAError(
            f"--primary_attack {config.primary_attack!r} is not a column of scores; "
            f"{suggest(config.primary_attack, names, see='')}"
        )
    if policy is not None:
        policy.check_attacks(names)
        check_contents(policy, file.records, has_gap=False)
    headline = config.primary_attack or names[-1]
    fraction = None if config.unlabeled is None else _fraction(config.unlabeled, headline, file.records, config.seed)
    assessment = assess(
        file.records,
        fprs=config.fprs,
        bootstrap=config.resamples,
        seed=config.seed,
        delta=config.delta,
        confidence=config.confidence,
        one_run=config.one_run,
        bound=config.bound,
        columns=file.columns,
    )
    return replace(assessment, fraction=fraction), file.notes


def _check_bound(config: ScoreEvaluationConfig) -> None:
    """Check the options of the reported bound."""
    if config.bound != "counts" and not config.one_run.random_inclusion:
        raise MIAError(
            f"--bound {config.bound} assumes independent random inclusion of the records; give "
            "--one_run.random_inclusion true if it holds, or leave --bound out"
        )
    if config.bound == "one_run_gaussian" and config.delta == 0:
        raise MIAError("--bound one_run_gaussian has no epsilon at delta 0; give --delta above 0")


def _read_scores(config: ScoreEvaluationConfig) -> ScoresFile:
    """Read the one file of scores, or of outputs of models."""
    from mia_lightning.references.exchange import is_pool
    from mia_lightning.scores.files import read_scores

    if len(config.scores) != 1:
        raise MIAError(
            f"{len(config.scores)} files of scores are named; name one, or use --leaderboard KEY for several"
        )
    (path,) = config.scores
    if is_pool(path):
        return _read_pool(config)
    return read_scores(path, key=config.key, attacks=config.attacks, columns=config.covariates, split=config.split)


def _fraction(path: str, attack: str, records: ScoredRecords, seed: int) -> Fraction:
    """Return the fraction of an unlabeled file that was in training."""
    from mia_lightning.evaluation.fraction import fraction_in_training
    from mia_lightning.scores.unlabeled import read_unlabeled

    unlabeled, groups = read_unlabeled(path, attack)
    return fraction_in_training(
        attack,
        unlabeled,
        records.scores[attack],
        records.membership,
        groups=records.groups,
        unlabeled_groups=groups,
        seed=seed,
    )


def _read_pool(config: ScoreEvaluationConfig) -> ScoresFile:
    """Return the standard scores of a file or folder of phi, logits or probabilities of target and references."""
    from mia_lightning.pipeline.arrays import scored_records
    from mia_lightning.scores.files import ScoresFile

    for option in ("key", "covariates", "split"):
        if getattr(config, option):
            raise MIAError(f"--{option} is for files of scores; {config.scores[0]} has outputs of models, leave it out")
    records, notes = scored_records(config.scores[0], seed=config.seed)
    if config.attacks is not None:
        for name in config.attacks:
            if name not in records.scores:
                raise MIAError(f"--attacks {name!r} is not a score of arrays; {suggest(name, records.scores, see='')}")
        records = replace(records, scores={name: records.scores[name] for name in config.attacks})
    return ScoresFile(records, {}, notes)


def rank_files(config: ScoreEvaluationConfig) -> tuple[Place, ...]:
    """Return the submissions ranked with the key of `config.leaderboard`.

    Raises:
        MIAError: any mistake in the options or the files they name.
    """
    from mia_lightning.evaluation.leaderboard import rank_submissions
    from mia_lightning.scores.files import read_key, read_submission

    assert config.leaderboard is not None
    if not config.scores:
        raise MIAError("--leaderboard is given without submissions; name one or more files of ids and score")
    key = read_key(config.leaderboard)
    names = _short_names(config.scores)
    key_name = Path(config.leaderboard).name
    scores = {name: read_submission(path, key, key_name) for name, path in zip(names, config.scores, strict=True)}
    return rank_submissions(scores, key[1], config.fpr, resamples=config.resamples, seed=config.seed)


def report_of(config: ScoreEvaluationConfig, assessment: Assessment, notes: Iterable[str]) -> Report:
    """Return the report of an assessment from scores alone; arguments from `evaluate_file`."""
    from mia_lightning.report.contents import Report
    from mia_lightning.report.files import versions
    from mia_lightning.report.filing import previous_audit

    names = list(assessment.attacks)
    named = "which was named with --primary_attack" if config.primary_attack else "the last column of scores"
    return Report(
        assessment,
        config.primary_attack or names[-1],
        named,
        versions("matplotlib"),
        notes=tuple(notes),
        filing=config.report,
        previous=previous_audit(config.report),
        class_names=config.report.class_names,
    )


@contextmanager
def _output(config: ScoreEvaluationConfig, overwrite: bool) -> Iterator[Path | None]:
    from mia_lightning.pipeline.run_folder import FILES
    from mia_lightning.report.files import claimed_folder

    replaceable = (*FILES, "leaderboard.csv") if overwrite else ()
    claimed = nullcontext() if config.output is None else claimed_folder(config.output, replaceable=replaceable)
    with claimed as folder:
        yield folder


def _run_evaluation(config: ScoreEvaluationConfig, console: Console, overwrite: bool) -> Decision | None:
    from mia_lightning.pipeline.policy import policy_of_scores, with_decision
    from mia_lightning.report.figures import draw
    from mia_lightning.report.files import write_report
    from mia_lightning.report.filing import check_class_names, previous_audit
    from mia_lightning.report.terminal import print_report

    previous_audit(config.report)
    policy = policy_of_scores(config.policy)
    with _output(config, overwrite) as folder:
        assessment, notes = evaluate_file(config, policy)
        check_class_names(config.report, assessment.records.labels)
        report = with_decision(report_of(config, assessment, notes), policy)
        for note in notes:
            print_line(f"note: {note}", console)
        print_report(report, console)
        if folder is not None:
            written = write_report(report, folder, draw(report))
            print_line(f"wrote {', '.join(written)} in {config.output}", console)
    return report.decision


def _run_leaderboard(config: ScoreEvaluationConfig, console: Console, overwrite: bool) -> None:
    from mia_lightning.report.terminal import leaderboard_table

    with _output(config, overwrite) as folder:
        places = rank_files(config)
        console.print(leaderboard_table(places, config.fpr))
        if folder is not None:
            with atomic_write(folder, "leaderboard.csv") as file:
                _write_places(file, places)
            print_line(f"wrote leaderboard.csv in {config.output}", console)


def _write_places(file: IO[str], places: Iterable[Place]) -> None:
    from mia_lightning.security.csv_formulas import formula_safe

    writer = csv.writer(file, lineterminator="\n")
    figures = ("tpr", "tpr_low", "tpr_high", "auc", "auc_low", "auc_high", "gap_to_next", "gap_low", "gap_high")
    writer.writerow(("rank", "rank_low", "rank_high", "submission", *figures))
    for entry in places:
        point, area = entry.evaluation.points[0], entry.evaluation
        values = (point.tpr, point.low, point.high, area.auc, area.auc_low, area.auc_high)
        gap = ("" if value is None else value for value in (entry.gap_to_next, entry.gap_low, entry.gap_high))
        writer.writerow((entry.rank, entry.rank_low, entry.rank_high, formula_safe(entry.name), *values, *gap))


def _short_names(paths: Iterable[str]) -> list[str]:
    """Return the files' names without folder and ending if these are unique, else the paths as given."""
    paths = list(paths)
    if repeated := [path for path in paths if paths.count(path) > 1]:
        raise MIAError(f"{repeated[0]} is named twice; name each submission once")
    short = [Path(path).stem for path in paths]
    return short if len(set(short)) == len(short) else paths
