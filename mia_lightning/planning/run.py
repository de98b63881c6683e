"""The command: a run in, a table of forecasts out."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mia_lightning.comparison.runs import facts_of, run_metrics
from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import CurvePoint
from mia_lightning.evaluation.config import PlannerConfig
from mia_lightning.pipeline.terminal import output_console, print_line
from mia_lightning.planning.plan import Plan, plan
from mia_lightning.planning.without_references import BASIS, plans_without_references
from mia_lightning.runtime.atomic import write_json


def run(config: PlannerConfig) -> tuple[Plan, ...]:
    """Forecast the scores of a run at more reference models; print, and write JSON if a file is named.

    Raises:
        MIAError: any mistake in the options, or the run has no learning curve.
    """
    if len(config.run) != 1:
        raise MIAError(f"{len(config.run)} runs are named; name one output folder of train.py")
    if config.output is not None and Path(config.output).is_dir():
        raise MIAError(f"--output {config.output} is a folder; name a file")
    folder = Path(config.run[0])
    if not (folder / "metrics.json").is_file():
        raise MIAError(f"{folder}: has no metrics.json; name the output folder of train.py")
    metrics = run_metrics(folder / "metrics.json")
    facts = facts_of(metrics)
    console = output_console(120)
    if facts and not facts.get("references") and not facts.get("learning_curve"):
        plans = _without_references(metrics, folder)
        print_line(f"no reference models in this run: the forecast is {BASIS}", console)
    else:
        curves = _curves(facts.get("learning_curve"), folder)
        plans = tuple(plan(name, curve, _seconds(facts)) for name, curve in curves.items())
    for item in plans:
        console.print(plan_table(item))
        print_line(f"{item.score}: {item.advice}", console)
    if config.output is not None:
        write_json(Path(config.output), [asdict(item) | {"advice": item.advice} for item in plans])
    return plans


def _without_references(content: dict[str, Any], folder: Path) -> tuple[Plan, ...]:
    """Return the plans of a run's headline attack.

    Raises:
        MIAError: too few records, or the content is not that of a run.
    """
    try:
        name = str(content["headline"])
        plans = plans_without_references(name, content["attacks"][name])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise MIAError(f"{folder}: its metrics.json is damaged; run train.py again") from error
    if not plans:
        raise MIAError(f"{folder}: has too few non-members for a TPR at FPR 5%; give more records of known membership")
    return plans


def plan_table(item: Plan) -> Table:
    """Return the forecasts of one score."""
    title = f"{item.score}: TPR at FPR {100 * item.fpr:g}% is {item.tpr:.4f} with {item.present} references"
    table = Table(title=escape(title), title_justify="left", title_style="", box=None)
    for column in ("references", "TPR", "95% interval", "gain", "gain, 95% interval", "hours"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in item.forecasts:
        hours = "-" if row.hours is None else f"{row.hours:.2g}"
        interval = f"{row.low:.4f}-{row.high:.4f}"
        gains = (f"{row.gain:+.4f}", f"{row.gain_low:+.4f} to {row.gain_high:+.4f}")
        table.add_row(str(row.references), f"{row.tpr:.4f}", interval, *gains, hours)
    return table


def _curves(content: Any, folder: Path) -> dict[str, list[CurvePoint]]:
    """Return the learning curves of at least two points.

    Raises:
        MIAError: there is none, or the content is not one.
    """
    try:
        curves = {str(name): [CurvePoint(**point) for point in points] for name, points in (content or {}).items()}
        kept = {name: sorted(curve, key=_references) for name, curve in curves.items() if len(curve) > 1}
        for curve in kept.values():
            if not all(isfinite(value) for point in curve for value in asdict(point).values()):
                raise ValueError
            if curve[0].references < 1 or any(a.references == b.references for a, b in pairwise(curve)):
                raise ValueError
    except (TypeError, ValueError, AttributeError) as error:
        raise MIAError(f"{folder}: its metrics.json is damaged; run train.py again") from error
    if not kept:
        raise MIAError(
            f"{folder}: has no learning curve; run train.py with --references.count 4 or more, or with none at all"
        )
    return kept


def _references(point: CurvePoint) -> int:
    return int(point.references)


def _seconds(facts: dict[str, Any]) -> float | None:
    """Return the mean training time of one reference, None where none was trained."""
    rows: Iterable[Any] = facts.get("references") or ()
    rows = [row for row in rows if isinstance(row, dict) and not row.get("set")]
    seconds = [row["seconds"] for row in rows if isinstance(row.get("seconds"), int | float)]
    return sum(seconds) / len(seconds) if seconds and sum(seconds) > 0 else None
