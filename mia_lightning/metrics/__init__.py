"""AUC, partial AUC and TPR at fixed FPR with confidence intervals: pure functions of scores."""

from mia_lightning.metrics.roc import auc, evaluate, partial_auc, roc_curve, tpr_at_fpr

__all__ = ["auc", "evaluate", "partial_auc", "roc_curve", "tpr_at_fpr"]
