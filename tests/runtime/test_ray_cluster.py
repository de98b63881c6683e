"""Ray of one's own whatever the surroundings, and wrong addresses as one sentence."""

import os
import socket
import threading
from unittest.mock import Mock

import pytest
from helpers.forked import Forked, python

from mia_lightning.cli import benchmark, train, tune
from mia_lightning.errors import MIAError
from mia_lightning.runtime import ray_cluster
from mia_lightning.runtime.ray_cluster import check_address


@pytest.fixture
def listener():
    """A server that answers every connection by the bytes it is given; None = it stays silent."""
    servers = []

    def start(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve():
            kept = []
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                kept.append(connection)
                if answer is not None:
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8265", "somewhere", "host:port", "127.0.0.1:0", "ftp://a:1", ":1"]
)
def test_addresses_of_another_form(address):
    with pytest.raises(MIAError, match=r"--ray.address .* is not a Ray address; give HOST:PORT"):
        check_address(address, option="--ray.address")


def test_nothing_listens(listener):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for scheme in ("", "ray://"):
        with pytest.raises(MIAError, match="is it running"):
            check_address(f"{scheme}127.0.0.1:{port}", option="--ray.address")


def test_something_else_listens(listener, monkeypatch):
    monkeypatch.setattr(ray_cluster, "ADDRESS_SECONDS", 0.3)
    for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"):
        with pytest.raises(MIAError, match="not the head of a Ray cluster"):
            check_address(listener(answer), option="--ray.address")
    with pytest.raises(MIAError, match="timed out"):
        check_address(listener(None), option="--ray.address")


def test_a_server_of_http2_passes(listener):
    check_address(listener(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])), option="--ray.address")


SCRIPT = """
from mia_lightning.runtime.ray_cluster import ray_session
with ray_session(None, option="--ray.address", num_cpus=1) as ray:
    print("started", ray.nodes()[0]["NodeManagerAddress"])
"""


@pytest.mark.parametrize("usable", [True, False])
def test_token_without_a_home(usable, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path if usable else "/dev/null"))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # restored at the end
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    ray_cluster._provide_token()
    assert ("RAY_AUTH_TOKEN" in os.environ) == (not usable)


@pytest.mark.parametrize(
    ("error", "starts"), [("The current node timed out during startup.", 3), ("no space left on device", 1)]
)
def test_start_is_tried_again_after_a_time_out(error, starts):
    ray = Mock(**{"init.side_effect": RuntimeError(error)})
    with pytest.raises(RuntimeError, match=error):
        ray_cluster._start(ray, {}, attempts=3)
    assert ray.init.call_count == starts
    assert ray.shutdown.call_count == starts - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8265", *(pytest.param(name, marks=pytest.mark.extended) for name in ("127.0.0.1:6399", "auto"))],
)
def test_own_ray_whatever_the_environment_names(address):
    job = {"RAY_RUNTIME_ENV_HOOK": "nowhere.hook", "RAY_JOB_CONFIG_JSON_ENV_VAR": "{", "RAY_NAMESPACE": "job"}
    environment = os.environ | job | {"RAY_ADDRESS": address, "HOME": "/dev/null"}  # unusable for root as well
    stdout, stderr = Forked(python(["-c", SCRIPT]), env=environment).communicate()
    assert stdout.strip() == "started 127.0.0.1", stderr[-2000:]


@pytest.mark.parametrize(
    ("writable", "default", "expected"),
    [
        (("/tmp", "/tmp/ray"), None, None),
        (("/var/tmp",), None, "/var/tmp/ray-"),
        (("/var/tmp", "/scratch"), "/scratch", None),
        (("/dev/shm",), "/scratch", "/dev/shm/ray-"),
        (("/dev/shm", "/" + 90 * "x"), "/" + 90 * "x", "/dev/shm/ray-"),
        ((), None, None),
    ],
)
def test_session_folder_has_room_and_a_short_name(writable, default, expected, monkeypatch):
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    if default:
        monkeypatch.setenv("TMPDIR", default)
    monkeypatch.setattr(ray_cluster, "_has_room", lambda folder: folder in writable)
    folder = ray_cluster._session_folder()
    assert folder is None if expected is None else folder.startswith(expected)


def test_room(tmp_path):
    assert ray_cluster._has_room(str(tmp_path))
    assert not ray_cluster._has_room(str(tmp_path / "absent"))


SEARCH = [
    "--config",
    "demo",
    "--evaluation.holdout",
    "0.2",
    "--search.space",
    "{attacks.mlp.init_args.epochs: {dist: int, low: 1, high: 2}}",
]


@pytest.mark.parametrize(
    ("command", "words", "using"),
    [
        (train, ["--config", "demo"], ["--references.count", "2", "--references.workers", "2"]),
        (tune, [*SEARCH, "--search.engine", "local"], ["--search.engine", "ray"]),
        (benchmark, ["--data", "digits:public"], ["--workers", "2"]),
    ],
)
def test_unused_or_unreachable_address_message(command, words, using, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    option = "--ray_address" if command is benchmark else "--ray.address"
    for further, sentence in (([], f"error: {option} 127.0.0.1:1 is not used"), (using, "error: cannot join the Ray")):
        assert command([*words, *further, option, "127.0.0.1:1", "--output", "run"]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert line.startswith(sentence)
    assert not (tmp_path / "run").exists()
