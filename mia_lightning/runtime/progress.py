"""Progress bars in terminals and notebooks, and the rate of the extraction for whoever logs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Rate = Callable[[int, float], object]
"""Callback invoked with the records that are done and the records per second since its last call."""

_rate: ContextVar[Rate | None] = ContextVar("rate", default=None)


@contextmanager
def rate_reported_to(callback: Rate) -> Iterator[None]:
    """Report the rate of extractions to a callback, which is no part of a request: the store's key is the same."""
    token = _rate.set(callback)
    try:
        yield
    finally:
        _rate.reset(token)


def report_rate(records: int, per_second: float) -> None:
    """Invoke the callback of this context, if there is one."""
    if (callback := _rate.get()) is not None:
        callback(records, per_second)


def progress_bar(**options: Any) -> Any:
    """Return a tqdm bar: a widget in a notebook, text in a terminal, and nothing where the output is a file or pipe.

    Args:
        options: Of tqdm; `disable=True` shows no bar anywhere.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(shell).__name__ == "ZMQInteractiveShell":
        from tqdm.auto import tqdm

        return tqdm(**{**options, "disable": bool(options.get("disable"))})
    from tqdm import tqdm

    return tqdm(**{"disable": None, **options})
