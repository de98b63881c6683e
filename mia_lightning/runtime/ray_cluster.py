"""Ray sessions: a private Ray on this machine, or a connection to a running cluster."""

import logging
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mia_lightning.errors import MIAError, reason
from mia_lightning.runtime.environment import without_variables
from mia_lightning.runtime.interruption import SignalHandlers

SILENT = {"RAY_USAGE_STATS_ENABLED": "0"}
"""No usage report leaves the machine."""

ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's switch for keeping to the address 127.0.0.1; elsewhere it listens on the machine's own address, or on all."""

PATIENT = {"RAY_gcs_server_port_wait_time_s": "120"}
"""Seconds for Ray's first server to start; its 30 are too short on a busy machine."""

ATTEMPTS = 3
"""Starts of a private Ray: the time of its second server cannot be set."""

OF_A_CLUSTER = ("RAY_ADDRESS", "RAY_NAMESPACE", "RAY_RUNTIME_ENV_HOOK", "RAY_JOB_CONFIG_JSON", "RAY_JOB_SUBMISSION_ID")
"""Beginnings of variables of a job or node of a cluster, which a private Ray would obey."""

LEAST_FREE = 2**28
"""Bytes that Ray's session needs for its logs and sockets."""

LONGEST_FOLDER = 35
"""Characters of a folder that leave room for the names of Ray's sockets."""

ADDRESS_SECONDS = 4.0
"""Time that a connection to and a response of the cluster may each take."""


@contextmanager
def ray_session(address: str | None, *, option: str, **machine: Any) -> Iterator[Any]:
    """Yield the module `ray` with a connection, the caller's own where there is one, which then stays.

    Args:
        address: Of a running cluster; None = start a private Ray on this machine, whatever RAY_ADDRESS is.
        option: Option that holds the address, for messages.
        machine: Arguments of `ray.init` where Ray is started here.

    Raises:
        MIAError: Ray is not installed, or no cluster is at the address.
    """
    for name, value in (SILENT if address else SILENT | ON_LOOPBACK | PATIENT).items():
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
    if address:
        check_address(address, option=option)
    else:
        _provide_token()
    local: dict[str, Any] = {"address": "local", "include_dashboard": False, **machine}  # whatever RAY_ADDRESS is
    if folder := _session_folder():
        local["_temp_dir"] = folder
    handlers = SignalHandlers()
    try:
        with without_variables(*(() if address else OF_A_CLUSTER)):
            _start(ray, {"address": address} if address else local, attempts=1 if address else ATTEMPTS)
    except Exception as error:  # a start that times out or a home that cannot be written raise many types
        if address:
            raise MIAError(f"cannot join the Ray cluster at {option} {address}: {reason(error)}") from error
        raise MIAError(
            f"Ray did not start on this machine ({reason(error)}); use --references.workers 0 or --search.engine "
            "local, which need no Ray"
        ) from error
    finally:
        handlers.restore()
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, arguments: dict[str, Any], *, attempts: int) -> None:
    """Call `ray.init`, again where it timed out."""
    for remaining in reversed(range(attempts)):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
            return
        except Exception as error:  # of many types, told apart by their texts
            if not remaining or "timed out" not in str(error).lower():
                raise
            ray.shutdown()


def _provide_token() -> None:
    """Set the token by which Ray's processes recognize each other where its file cannot be made in the home folder."""
    folder = Path("~/.ray").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK) or (folder / "auth_token").is_file()
    except OSError:
        writable = False
    if not writable and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # for the rest of the process: Ray keeps it


def _session_folder() -> str | None:
    """Return a folder for Ray's session where its default cannot be written, is nearly full or too long; else None.

    The default is `ray` in RAY_TMPDIR, TMPDIR or /tmp. Paths of Unix sockets are limited to 107 bytes.
    """
    default = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    present = os.path.join(default, "ray")
    if len(default) <= LONGEST_FOLDER and _has_room(present if os.path.isdir(present) else default):
        return None
    candidates = (default, "/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), os.getcwd())
    parent = next((folder for folder in candidates if len(folder) <= LONGEST_FOLDER and _has_room(folder)), None)
    return None if parent is None else os.path.join(parent, f"ray-{os.getuid()}")


def _has_room(folder: str) -> bool:
    try:
        return os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free >= LEAST_FREE
    except OSError:
        return False


def check_cluster(address: str | None, *, option: str, used: bool, needs: str) -> None:
    """Check that a run uses the address of a Ray cluster, if one is given, and that the cluster is there.

    Args:
        address: See `check_address`.
        option: Option that holds the address, for messages.
        used: Whether the run uses Ray.
        needs: Options that make it do so, for the message.

    Raises:
        MIAError: the address is not used, or as `check_address`.
    """
    if address is None:
        return
    if not used:
        raise MIAError(f"{option} {address} is not used in this run; give {needs} as well, or leave it out")
    check_address(address, option=option)


def check_address(address: str, *, option: str) -> None:
    """Check within some seconds that a Ray cluster is at an address; `ray.init` itself tries for minutes.

    Args:
        address: "auto", "HOST:PORT" or "ray://HOST:PORT".
        option: Option that holds the address, for messages.

    Raises:
        MIAError: an address of another form, nothing that listens there, or something that is not Ray.
    """
    if address in ("auto", "local"):
        return
    scheme, _, rest = address.rpartition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in ("", "ray") or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise MIAError(f"{option} {address} is not a Ray address; give HOST:PORT of the head node (port 6379), or auto")
    try:
        is_ray = _speaks_http2(host.strip("[]"), int(port))
    except OSError as error:
        raise MIAError(
            f"cannot join the Ray cluster at {option} {address}: {error.strerror or error}; is it running, and is this "
            "the head node's HOST:PORT?"
        ) from error
    if not is_ray:
        raise MIAError(
            f"cannot join the Ray cluster at {option} {address}: what listens there is not the head of a Ray cluster; "
            "give the head node's HOST:PORT (usually port 6379)"
        )


def _speaks_http2(host: str, port: int) -> bool:
    """Whether a server responds to the preface of HTTP/2, the base of Ray's gRPC, with a SETTINGS frame (RFC 9113)."""
    with socket.create_connection((host, port), timeout=ADDRESS_SECONDS) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        header = b""
        while len(header) < 9 and (part := connection.recv(9 - len(header))):
            header += part
    return len(header) == 9 and header[3] == 4
