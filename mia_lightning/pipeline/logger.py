"""The Lightning logger that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mia_lightning.config.class_paths import resolve
from mia_lightning.errors import MIAError, reason

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from mia_lightning.config.schema import LoggerConfig


def build_logger(config: LoggerConfig) -> Logger | None:
    """Return the logger of `--logger.class_path`, None without one.

    Raises:
        MIAError: it is not a subclass of Lightning's Logger, or cannot be built from its arguments.
    """
    if config.class_path is None:
        if config.init_args:
            raise MIAError("--logger.init_args is given without --logger.class_path; name the logger's class")
        return None
    from lightning.pytorch.loggers import Logger

    cls = resolve(config.class_path, Logger, "logger.class_path")
    try:
        logger = cls(**config.init_args)
    except Exception as error:
        raise MIAError(f"--logger.class_path {config.class_path}: {reason(error)}; see --logger.init_args") from error
    assert isinstance(logger, Logger)
    return logger
