"""Progress bars in terminals and notebooks."""

import sys
from collections.abc import Callable
from typing import Any

RateCallback = Callable[[int, float], object]
"""Callback invoked with the records that are done and the records per second since its last call."""


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
