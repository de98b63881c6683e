"""Silencing of third-party log messages."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence hardware banners and the warnings that do not apply to loaders of whole resident batches."""
    with (
        quiet_logger("lightning.pytorch", logging.WARNING),
        quiet_logger("lightning.pytorch.utilities.rank_zero", logging.WARNING),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined.*")
        warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging")
        warnings.filterwarnings("ignore", message="The dirpath has changed from")  # of scratch folders
        warnings.filterwarnings("ignore", message="Total length of `DataLoader` across ranks is zero.*")
        # Lightning 2.6.6 with torch 2.15
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
        yield


@contextmanager
def quiet_logger(name: str, level: int) -> Iterator[None]:
    """Raise the level of a library's logger within the block."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
