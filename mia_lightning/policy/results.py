"""Result of one criterion: its figure and interval against the margin, and what would decide it."""

from mia_lightning.metrics.roc import Evaluation
from mia_lightning.policy.decision import Outcome, Result
from mia_lightning.policy.needed import records_needed
from mia_lightning.policy.policy import AT_A_RATE, Criterion


def outcome_of(interval: tuple[float, float, float], margin: float) -> Outcome:
    """Return the outcome of a figure (value, low, high) with an upper limit."""
    return "pass" if interval[2] < margin else "fail" if interval[1] > margin else "inconclusive"


def result_of(
    criterion: Criterion,
    name: str,
    interval: tuple[float, float, float],
    evaluation: Evaluation,
    factor: float | None,
    words: str = "",
) -> Result:
    """Return the result of a figure (value, low, high).

    Args:
        criterion: Its limit.
        name: Of the attack.
        interval: Value, and ends of the 95% interval.
        evaluation: Gives the numbers of records.
        factor: On these, at which the figure would be decided; None where no number does.
        words: What the figure is of.
    """
    percent = criterion.figure in AT_A_RATE or criterion.figure == "generalization_gap"
    scale, unit = (100, "%") if percent else (1, "")
    value, low, high = (f"{scale * figure:.3g}" for figure in interval)
    shown = f"{value}{unit} [{low} to {high}]" + (f" ({words})" if words else "")
    outcome = outcome_of(interval, criterion.max)
    if outcome == "inconclusive":
        return undecided(criterion, name, evaluation, factor, shown, interval)
    return Result(criterion.name, name, outcome, shown, *interval, criterion.max)


def undecided(
    criterion: Criterion,
    name: str,
    evaluation: Evaluation,
    factor: float | None,
    shown: str,
    interval: tuple[float, float, float] | None = None,
) -> Result:
    """Return an inconclusive result with the numbers of records that would decide."""
    needed = [records_needed(count, factor) for count in (evaluation.n_members, evaluation.n_non_members)]
    if factor is None:
        advice = "the estimate lies at the margin, which no number of records decides"
    else:
        advice = f"about {needed[0]:,} members and {needed[1]:,} non-members would decide (power 80%)"
    value, low, high = interval or (None, None, None)
    sentence = f"{shown}; {advice}"
    return Result(criterion.name, name, "inconclusive", sentence, value, low, high, criterion.max, *needed)
