"""Signals: each marked function of a file in this package is one; a new function or file is found by itself."""

from mia_lightning.signals._build import build_table
from mia_lightning.signals._registry import expand_names, get_signal, preset, signal_names
from mia_lightning.signals.base import Signal, signal

__all__ = ["Signal", "build_table", "expand_names", "get_signal", "preset", "signal", "signal_names"]
