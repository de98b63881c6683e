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
"""The features of the method this project began with.

Its likelihood ratio of two normal densities of `confidence` learns from membership and so is an attack
(GaussianLikelihoodRatio). It took logarithms of softmax + 1e-10, which ties the most confident records; here nothing
saturates before the value itself does.
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
"""Every signal that says something the others do not, as far as the target's outputs give it."""
