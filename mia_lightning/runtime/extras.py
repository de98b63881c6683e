"""Optional libraries, imported when they are needed."""

import importlib
from typing import Any

from mia_lightning.errors import MIAError, reason


def require(module: str, extra: str) -> Any:
    """Return a module of an optional library.

    Args:
        module: Its dotted name.
        extra: The extra of this package that installs it.

    Raises:
        MIAError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MIAError(
            f"{module.partition('.')[0]} is not installed or cannot be imported ({reason(error, 120)}); "
            f'pip install "mia-lightning[{extra}]"'
        ) from None
