"""Named lists of signals."""

COURSE = (
    "probabilities",
    "loss",
    "entropy",
    "course_adjusted_entropy",
    "top2_margin",
    "confidence",
    "is_correct",
    "max_logit",
    "label_logit",
    "course_gradient_proxy",
)
"""Features of the course baseline.

Its likelihood ratio of two normal densities of `confidence` learns from membership and is therefore an attack
(GaussianLikelihoodRatio). It took logarithms of softmax + 1e-10, which ties the most confident records; the formulas
here do not saturate.
"""

STANDARD = (
    "loss",
    "phi",
    "hinge",
    "entropy",
    "modified_entropy",
    "top2_margin",
    "confidence",
    "is_correct",
    "max_logit",
    "label_logit",
    "label_rank",
    "logit_norm",
    "energy",
    "bias_gradient_norm",
    "weight_gradient_norm",
    "feature_norm",
    "phi_original",
    "phi_std",
    "phi_min",
    "phi_max",
    "phi_contrast",
    "canonical_contrast",
    "label_agreement",
    "input_gradient_norm",
    "phi_gradient_norm",
    "logits",
    "canonical_logits",
    "features",
)
"""One signal of each kind; those that the target's outputs cannot give are left out."""
