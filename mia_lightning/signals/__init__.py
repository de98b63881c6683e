"""Signals: each marked function in a module of this package is one, found by name.

A new signal is one function, in a new file here or in a module of your own (`--signals.names [my_module:my_signal]`)::

    from mia_lightning.signals import logit_signal

    @logit_signal(direction=1)
    def squared_logit(logits, labels):
        return np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0] ** 2
"""

from mia_lightning.signals._build import build_table
from mia_lightning.signals._registry import expand_names, find_signal, get_signal, preset, signal_names
from mia_lightning.signals.base import Signal, logit_signal, signal

__all__ = [
    "Signal",
    "build_table",
    "expand_names",
    "find_signal",
    "get_signal",
    "logit_signal",
    "preset",
    "signal",
    "signal_names",
]
