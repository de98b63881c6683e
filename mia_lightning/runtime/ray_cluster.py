"""Ray for the time of some work: processes of its own on this machine, or a cluster that is there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mia_lightning.errors import MIAError
from mia_lightning.runtime.interruption import SignalHandlers

SILENT = {"RAY_USAGE_STATS_ENABLED": "0"}
"""No usage report leaves the machine."""

ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's switch for keeping to the address 127.0.0.1; elsewhere it listens on the machine's own address, or on all."""


@contextmanager
def ray_session(address: str | None, *, option: str, **machine: Any) -> Iterator[Any]:
    """Yield the module `ray` with a connection, the caller's own where there is one, which then stays.

    Args:
        address: Of a cluster that is there; None = start Ray on this machine.
        option: What the user names the address by.
        machine: Arguments of `ray.init` where Ray is started here.

    Raises:
        MIAError: Ray is not installed, or no cluster is at the address.
    """
    for name, value in (SILENT if address else SILENT | ON_LOOPBACK).items():
        os.environ.setdefault(name, value)  # read when Ray is imported
    try:
        import ray
    except ImportError as error:
        raise MIAError(
            "Ray is not installed; install ray[tune], or use --search.engine local and --references.workers 0"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    options = {"address": address} if address else {"include_dashboard": False, **machine}
    handlers = SignalHandlers()
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if not address:
            raise
        raise MIAError(f"cannot join the Ray cluster at {option} {address!r}: {error}") from error
    finally:
        handlers.restore()
    try:
        yield ray
    finally:
        ray.shutdown()
