"""Complete runs at half the cost: TensorBoard's copies of figures stay blank, and few permutations are refitted.

Every run still draws all figures for its report, and refits as where fits are slow: the smallest sample and number of
permutations there are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from matplotlib.backends.backend_agg import FigureCanvasAgg

from mia_lightning.evaluation import permutation
from mia_lightning.pipeline import run_report

DRAW, REFIT = FigureCanvasAgg.draw, permutation.refitted_permutation_test


def _leave_blank(canvas: FigureCanvasAgg) -> None:
    canvas.get_renderer()


def _refit_few(*arguments: object, **options: object) -> object:
    with mock.patch.object(permutation, "REFIT_SECONDS", 0.0):
        return REFIT(*arguments, **options)


@contextmanager
def full_length() -> Iterator[None]:
    """Rasterize figures and refit as outside the tests."""
    refits = mock.patch.object(run_report, "refitted_permutation_test", REFIT)
    with mock.patch.object(FigureCanvasAgg, "draw", DRAW), refits:
        yield


FigureCanvasAgg.draw = _leave_blank
run_report.refitted_permutation_test = _refit_few
