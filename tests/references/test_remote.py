"""Reference stores behind fsspec: workers without a shared folder, wrong addresses."""

import numpy as np
import pytest
import torch

from mia_lightning.errors import MIAError
from mia_lightning.references.config import ReferencesConfig, ReferenceTraining
from mia_lightning.references.networks import NetworkFactory
from mia_lightning.references.remote import RemoteFolder, is_address
from mia_lightning.references.store import ReferenceStore
from mia_lightning.references.training_data import TrainingData
from mia_lightning.references.workers import ReferenceJob, _in_worker, train_references
from mia_lightning.runtime import hardware
from mia_lightning.targets.base import TargetForm

N = 60


def material():
    draw = np.random.default_rng(0)
    return TrainingData(
        draw.integers(0, 256, (N, 1, 8, 8), dtype=np.uint8), draw.integers(0, 10, N), (0.5,), (0.5,), 10, 1
    )


def job(root, remote, epochs=3):
    store = ReferenceStore(root, training={"epochs": 3}, inference={}, records=N, queries=1, remote=remote)
    keep = np.random.default_rng(1).random((1, N)) < 0.5
    store.open(keep, weights_bytes=1000)
    network = NetworkFactory("mia_lightning.targets.demo:digits_network", 10, {}, TargetForm(), {})
    recipe = ReferenceTraining(epochs=epochs, batch_size=8, learning_rate=0.02)
    return ReferenceJob(0, keep[0], 0, recipe, network, store, "cpu")


@pytest.fixture
def bucket(monkeypatch):
    """The address of a bucket of a local S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("audits")
    yield "s3://audits/one"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def train(job):
    train_references([job], material(), ReferencesConfig())
    return job.store.matrix(1).copy()


def test_finished_references_are_reported_with_their_losses(tmp_path):
    trained, rows = job(tmp_path, None), []
    train_references([trained], material(), ReferencesConfig(), on_finished=rows.append)
    assert len(rows[0].losses) == 3
    assert rows[0].losses[-1] < rows[0].losses[0]
    assert trained.store.row(0).losses == rows[0].losses


class Preempted(BaseException):
    """Stands for the loss of a machine."""


def preempt(job, monkeypatch):
    """Train on a machine that is lost after its second epoch; nothing of its disk stays."""
    send = ReferenceStore.send_checkpoint
    sent = []

    def lost(store, number):
        send(store, number)
        sent.append(number)
        if len(sent) == 2:
            raise Preempted

    monkeypatch.setattr(ReferenceStore, "send_checkpoint", lost)
    threads = torch.get_num_threads()
    with pytest.raises(Preempted):
        _in_worker(job, material(), threads)
    monkeypatch.setattr(ReferenceStore, "send_checkpoint", send)


def test_machines_without_a_shared_folder(tmp_path, monkeypatch, bucket):
    expected = train(job(tmp_path / "alone", None))
    preempt(job(tmp_path / "first", bucket), monkeypatch)
    second = job(tmp_path / "second", bucket)
    assert second.store.progress(0) != b""
    assert not second.store.checkpoint(0).exists()
    epochs = []
    monkeypatch.setattr(ReferenceStore, "send_checkpoint", lambda store, number: epochs.append(number), raising=True)
    np.testing.assert_array_equal(train(second), expected)
    assert len(epochs) == 1  # only the third epoch
    third = job(tmp_path / "third", bucket)  # another driver: everything is there
    assert third.store.row(0) == second.store.row(0)
    np.testing.assert_array_equal(third.store.matrix(1), expected)
    assert third.store.remote.read("0000.checkpoint") is None


def test_damaged_remote_files_are_trained_again(tmp_path):
    address = f"memory://{tmp_path.name}"
    expected = train(job(tmp_path / "a", address))
    store = job(tmp_path / "b", address).store
    rows = store.remote.joined(store.rows.name)
    rows.write("0000.float32", b"\0" * (N * 4))
    store.remote.write("0000.safetensors", b"damaged")
    again = job(tmp_path / "b", address)
    assert again.store.row(0) is None
    np.testing.assert_array_equal(train(again), expected)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("nowhere://a/b", r"--cache_dir: cannot write into nowhere://a/b \(Protocol not known: nowhere"),
        ("gs://a/b", r"gs:// needs another library; pip install gcsfs"),
        ("file:///proc/no", r"--cache_dir: cannot write into file:///proc/no"),
        ("s3://", r"s3:// names no bucket; write s3://BUCKET/FOLDER"),
        ("gs:///folder", r"gs:///folder names no bucket; write gs://BUCKET/FOLDER"),
        ("s3:/bucket/folder", r"has one slash too few; write s3://bucket/folder"),
    ],
)
def test_wrong_address(address, sentence):
    assert is_address(address)
    with pytest.raises(MIAError, match=sentence) as raised:
        RemoteFolder(address).check()
    assert "\n" not in str(raised.value)


def test_folder_of_an_address_is_made(tmp_path):
    RemoteFolder(f"file://{tmp_path}/new/store").check()
    assert list((tmp_path / "new" / "store").iterdir()) == []
    assert not is_address("C:/store")
    assert not is_address("./s3:store")


def test_mps_is_seen_by_its_pipe(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not hardware.mps_is_running()
    (tmp_path / "control").touch()
    assert hardware.mps_is_running()
