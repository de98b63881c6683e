"""Progress over the fits of all attacks."""

import logging
import sys
from typing import Any, Self

from mia_lightning.runtime.progress import progress_bar

log = logging.getLogger("mia_lightning.pipeline.run")


class FitProgress:
    """Progress bar over all fits of all attacks, shown from the first fit on."""

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, name: str, fold: int) -> None:
        """Advance to a fit of an attack."""
        if fold == 0 and not sys.stderr.isatty():  # where no bar is shown
            log.info("fitting attack %s", name)
        if self.bar is None:
            self.bar = progress_bar(total=self.fits, unit="fit")
        else:
            self.bar.update()
        self.bar.set_description(f"attack {name}, fold {fold + 1}")

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self.bar is not None:
            if error is None:
                self.bar.update()
            self.bar.close()
