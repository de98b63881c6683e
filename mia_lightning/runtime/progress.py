"""Progress bars in terminals and notebooks, lines in logs."""

import io
import logging
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

RateCallback = Callable[[int, float], object]
"""Callback invoked with the records that are done and the records per second since its last call."""

LINE_SECONDS = 60
"""Seconds between two lines where the output is a file or pipe."""

log = logging.getLogger(__name__)


class LogLines(io.TextIOBase):
    """Text stream that logs each line that is not blank."""

    def write(self, text: str) -> int:
        """Log a line without the control characters of a bar."""
        if line := text.strip():
            log.info("%s", line)
        return len(text)


class LineBar(tqdm):  # type: ignore[misc]
    """Bar that logs a line a minute, with the description and postfix of that time."""

    def __init__(self, **options: Any) -> None:
        layout = "{desc}: {percentage:.0f}%, {rate_fmt}, {remaining} left{postfix}"
        seconds = {"delay": LINE_SECONDS, "mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS}
        super().__init__(**{**options, **seconds, "bar_format": layout, "file": LogLines(), "leave": False})

    def set_description(self, desc: str | None = None, refresh: bool | None = False) -> None:
        """Set the text before the figures, without a line of its own."""
        super().set_description_str(desc, refresh=False)

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        """Set the text after the figures, without a line of its own."""
        super().set_postfix_str(s, refresh=False)


def progress_bar(**options: Any) -> Any:
    """Return a tqdm bar: a widget in a notebook, text in a terminal, and a line a minute where the output is a file.

    Args:
        options: Of tqdm; `disable=True` shows nothing anywhere, and `bar_format` is that of a terminal.
    """
    options["disable"] = bool(options.get("disable"))
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(shell).__name__ == "ZMQInteractiveShell":
        from tqdm.auto import tqdm as widget

        return widget(**options)
    return tqdm(**options) if sys.stderr.isatty() else LineBar(**options)
