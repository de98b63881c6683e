"""Calibrated and evaluated scores of one attack."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from mia_lightning.config.schema import RunConfig
from mia_lightning.metrics.roc import Evaluation, evaluate
from mia_lightning.pipeline.model_outputs import ModelOutputs
from mia_lightning.pipeline.results import AttackResult, SplitInfo
from mia_lightning.records.records import UNKNOWN
from mia_lightning.scores.calibration import cross_fit_probability
from mia_lightning.scores.crossfit import NOT_IN_ANY_FOLD, CrossFit


def attack_result(config: RunConfig, fitted: CrossFit, outputs: ModelOutputs) -> AttackResult:
    """Calibrate and evaluate the scores of one attack over all records, (N + M,) public first."""
    public, fprs, scores = outputs.public, config.evaluation.fprs, fitted.scores
    member, in_folds, count = public.membership, public.fold != NOT_IN_ANY_FOLD, len(public.ids)
    attacker_view, fold = outputs.attacker_view()
    probabilities = cross_fit_probability(scores, attacker_view, fold, config.evaluation.calibration)
    held_out, groups = public.held_out, public.groups
    evaluated = partial(
        evaluate, groups=None if groups is None else groups[in_folds], stability=fitted.stability, fprs=fprs
    )
    return AttackResult(
        public_scores=scores[:count],
        public_probabilities=probabilities[:count],
        private_scores=scores[count:],
        private_probabilities=probabilities[count:],
        public=evaluated(scores[:count][in_folds], member[in_folds]),
        public_calibrated=evaluated(probabilities[:count][in_folds], member[in_folds]),
        held_out=_held_out_evaluation(scores[:count], public, fprs) if held_out.any() else None,
        private=_private_evaluation(scores[count:], outputs.private, fprs),
        seconds=fitted.seconds,
        stability=fitted.stability,
        private_single=None if fitted.single is None else fitted.single[count:],
    )


def _held_out_evaluation(scores: NDArray[np.float64], public: SplitInfo, fprs: tuple[float, ...]) -> Evaluation:
    rows, groups = public.held_out, public.groups
    return evaluate(scores[rows], public.membership[rows], fprs, groups=None if groups is None else groups[rows])


def _private_evaluation(
    scores: NDArray[np.float64], private: SplitInfo | None, fprs: tuple[float, ...]
) -> Evaluation | None:
    """Evaluate where the private membership is known; nothing else reads it."""
    if private is None or len(np.unique(private.membership[private.membership != UNKNOWN])) < 2:
        return None
    labeled = private.membership != UNKNOWN
    return evaluate(scores[labeled], private.membership[labeled], fprs=fprs)
