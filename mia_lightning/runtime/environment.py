"""Environment variables through which libraries would change results without an option of ours."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_variables(*prefixes: str) -> Iterator[None]:
    """Hide the environment variables with these prefixes within the block."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def restored_variables(*names: str) -> Iterator[None]:
    """Restore these environment variables after the block."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
