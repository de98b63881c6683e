"""Complete run: output folder, TensorBoard, progress, terminal tables and report."""

import logging
from dataclasses import replace
from time import perf_counter

from mia_lightning.config.schema import RunConfig
from mia_lightning.errors import MIAError
from mia_lightning.pipeline.audit import attack_target, prepare, run_helper_process
from mia_lightning.pipeline.policy import check_records, policy_of_run, with_decision
from mia_lightning.pipeline.progress import FitProgress
from mia_lightning.pipeline.results import AuditResult, LoadedInputs
from mia_lightning.pipeline.run_folder import RunFolder
from mia_lightning.pipeline.run_report import assess_result, report_of
from mia_lightning.pipeline.tensorboard import TensorBoard, build_logger
from mia_lightning.pipeline.terminal import output_console, print_next_commands, print_result, show_log
from mia_lightning.report.figures import draw
from mia_lightning.report.files import write_report
from mia_lightning.report.plots import plot_roc, style
from mia_lightning.report.terminal import print_conclusion
from mia_lightning.runtime.hardware import is_first_process
from mia_lightning.runtime.ray_cluster import check_cluster
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD

log = logging.getLogger(__name__)


def run(config: RunConfig, *, overwrite: bool = False) -> AuditResult:
    """Audit the target, write the run folder and print the results.

    Args:
        config: The run.
        overwrite: Whether an earlier run in the output folder is replaced.

    Raises:
        MIAError: any mistake in the configuration, the files it names, or the output folder. A folder that this run
            created is removed again.
    """
    show_log()
    if not is_first_process():  # a worker of the extraction, which ends after it
        run_helper_process(config)
    check_cluster(
        config.ray.address,
        option="--ray.address",
        used=any(each.count and each.workers for each in config.references.by_set.values()),
        needs="--references.count K and --references.workers W",
    )
    folder = RunFolder(config, overwrite=overwrite)
    try:
        return _run(config, folder)
    finally:
        folder.release()


def _run(config: RunConfig, folder: RunFolder) -> AuditResult:
    policy = policy_of_run(config)
    prepared = prepare(config)
    if policy is not None:
        check_records(policy, prepared.public)
    logger = build_logger(config.logger)
    folder.acquire()
    board = TensorBoard(folder.path / "tensorboard", logger)
    try:
        result = _attack(config, prepared, board)
    except MIAError:
        folder.discard()
        raise
    written = folder.write_result(result)
    _write_roc(folder, result)
    console = output_console(100)
    print_result(result, console)
    log.info("evaluating: confidence intervals, permutation tests and report")
    started = perf_counter()
    assessment = assess_result(result, prepared)
    report = with_decision(report_of(result, prepared, assessment, perf_counter() - started), policy)
    print_conclusion(report, console)
    drawn = list(draw(report))
    written += ["roc.svg", *write_report(report, folder.path, drawn)]
    board.finish(result, report, drawn)
    print_next_commands(config, written, console)
    return replace(result, decision=report.decision)


def _attack(config: RunConfig, prepared: LoadedInputs, board: TensorBoard) -> AuditResult:
    with FitProgress(len(config.attacks) * config.evaluation.folds) as progress:
        return attack_target(
            config,
            prepared,
            progress=progress,
            report=board.report,
            on_reference=board.reference,
            on_rate=board.extraction,
        )


def _write_roc(folder: RunFolder, result: AuditResult) -> None:
    evaluated = result.public.fold != NOT_IN_ANY_FOLD
    scores = {name: attack.public_scores[evaluated] for name, attack in result.attacks.items()}
    figure = plot_roc(
        scores,
        result.public.membership[evaluated],
        title="Public records, out-of-fold",
        headline=result.config.submitted,
    )
    with folder.atomic_write("roc.svg") as file, style(svg_fonttype="path"):
        figure.savefig(file, format="svg", metadata={"Date": None})
