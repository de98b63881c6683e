"""Extraction against plain loops, and what the store does when work is cut off, damaged, or asked for twice."""

import json
import os
import re
import signal
import socket
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.extraction import (
    CLASSES,
    COUNT,
    CPU,
    MEAN,
    Small,
    extract,
    make_records,
    normalized,
    small_target,
    with_statistics,
)
from helpers.forked import Forked, python
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

from mia_lightning.errors import MIAError
from mia_lightning.outputs import extraction, request
from mia_lightning.outputs.datamodule import MembershipDataModule
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.runtime.own_files import ArraySpec
from mia_lightning.runtime.store import CacheEntry, merge
from mia_lightning.targets.base import Target


@pytest.fixture
def predictions(monkeypatch):
    """Records that were sent through the target, counted where the target is called."""
    seen = []
    step = extraction.InferenceModule.predict_step

    def counted(self, batch, *rest):
        seen.append(len(batch["index"]))
        return step(self, batch, *rest)

    monkeypatch.setattr(extraction.InferenceModule, "predict_step", counted)
    return seen


# ---- the numbers


@pytest.mark.parametrize("batch_size", [1, 11, 64])  # 45 = 4 x 11 + 1: the last batch is of one
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_outputs_equal_plain_loop(tmp_path, dtype, batch_size):
    public, private = make_records(dtype=dtype), make_records(1, dtype, "private", count=7)
    hardware = replace(CPU, batch_size=batch_size)
    halves = extract(tmp_path, public, private, hardware=hardware)
    network = small_target().network
    for outputs, records in zip(halves, (public, private), strict=True):
        for row, image in enumerate(normalized(records)):
            features = network.body(image[None]).flatten(1)
            np.testing.assert_allclose(outputs.logits[row, 0], network.head(features)[0], atol=1e-5)
            np.testing.assert_allclose(outputs.features[row], features[0], atol=1e-5)
        assert (outputs.labels == records.labels).all()


@pytest.mark.parametrize("fuse", [True, False])
def test_resnet_of_the_assignment(tmp_path, fuse):
    torch.manual_seed(1)
    network = with_statistics(resnet18(num_classes=CLASSES))
    target = Target(network, CLASSES, "fc", "resnet18", "digest")
    public = make_records(size=32)
    outputs, _ = extract(tmp_path, public, target=target, hardware=replace(CPU, fuse=fuse))
    expected = network(normalized(public))
    np.testing.assert_allclose(outputs.logits[:, 0], expected, atol=1e-4)
    assert outputs.features.shape == (COUNT, 512)


def test_values_outside_the_unit_range_survive(tmp_path):
    public = make_records(dtype=np.float32)
    wild = replace(public, images=public.images * 9 - 4)
    outputs, _ = extract(tmp_path, wild)
    np.testing.assert_allclose(outputs.logits[:, 0], small_target().network(normalized(wild)), atol=1e-4)


def slow_views(image, reach):
    """Every view of one (C, H, W) image, built pixel by pixel from NumPy's own reflection."""
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    height, width = image.shape[1:]
    steps = [(0, 0)] + [
        (down, right)
        for down in range(-reach, reach + 1)
        for right in range(-reach, reach + 1)
        if (down, right) != (0, 0)
    ]
    shifted = [padded[:, reach + d : reach + d + height, reach + r : reach + r + width] for d, r in steps]
    return [*shifted, *(view[:, :, ::-1].copy() for view in shifted)]


@pytest.mark.parametrize(("queries", "reach"), [(2, 0), (18, 1), (50, 2)])
def test_queries_are_the_shifted_and_mirrored_views(tmp_path, queries, reach):
    public = make_records(count=6)
    outputs, _ = extract(tmp_path, public, queries=queries)
    network = small_target().network
    assert outputs.logits.shape == (6, queries, CLASSES)
    for row, image in enumerate(normalized(public).numpy()):
        views = torch.from_numpy(np.stack(slow_views(image, reach)))
        np.testing.assert_allclose(outputs.logits[row], network(views), atol=1e-5)


def test_gradient_norms_equal_autograd(tmp_path):
    from mia_lightning.signals import build_table

    public = make_records()
    outputs, _ = extract(tmp_path, public, gradients=True, queries=2)
    table = build_table(
        outputs, names=["input_gradient_norm", "phi_gradient_norm", "phi_gradient_l1", "phi_gradient_max"]
    )
    network = small_target().network
    for row, image in enumerate(normalized(public)):
        inputs, label = image[None].requires_grad_(), int(public.labels[row])
        loss = nn.functional.cross_entropy(network(inputs), torch.tensor([label]))
        expected = float(torch.autograd.grad(loss, inputs)[0].norm())
        assert table.columns["input_gradient_norm"][row] == pytest.approx(expected, rel=1e-4)
        probability = network(inputs).softmax(dim=1)[0, label]
        (slope,) = torch.autograd.grad(probability.logit(), inputs)
        for name, value in (("norm", slope.norm()), ("l1", slope.abs().sum()), ("max", slope.abs().max())):
            assert table.columns[f"phi_gradient_{name}"][row] == pytest.approx(float(value), rel=1e-3)


def test_bf16_has_its_own_key(tmp_path):
    exact, _ = extract(tmp_path)
    rough, _ = extract(tmp_path, hardware=replace(CPU, precision="bf16-mixed"))
    assert rough.logits.dtype == rough.features.dtype == np.float32
    difference = np.abs(rough.logits - exact.logits).max()
    assert 0 < difference < 0.05
    assert len(list(tmp_path.glob("*/*"))) == 2


def test_normalization_from_public_images_is_logged(tmp_path, caplog):
    caplog.set_level("INFO", logger="mia_lightning")
    public, private = make_records(), make_records(1, source="private")
    computed = extract(tmp_path / "a", public, private, mean=None, std=None)
    pixels = public.images.astype(np.float64) / 255
    mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
    assert ", ".join(f"{value:.4f}" for value in mean) in caplog.text
    given = extract(tmp_path / "b", public, private, mean=mean.tolist(), std=std.tolist())
    for one, other in zip(computed, given, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-6)


def test_missing_labels_are_the_predicted_class(tmp_path):
    public = make_records()
    missing = public.labels.copy()
    missing[::3] = -1
    outputs, _ = extract(tmp_path, replace(public, labels=missing), queries=2)
    expected = np.where(missing < 0, outputs.logits[:, 0].argmax(axis=1), missing)
    assert (outputs.labels == expected).all()


# ---- what is refused


def test_nan_logits_name_the_record(tmp_path):
    class Overflow(Small):
        def forward(self, images):
            logits = super().forward(images)
            return torch.where(images[:, :1, 0, 0] > 1.9, logits / 0, logits)

    images = make_records(dtype=np.float32).images * 0.5
    images[3, 0, 0, 0] = 0.9  # normalized, above 1.9
    target = replace(small_target(), network=with_statistics(Overflow()), digest="overflow")
    with pytest.raises(MIAError, match="NaN or infinite logits for record 3"):
        extract(tmp_path, replace(make_records(), images=images), target=target)
    assert not list(tmp_path.rglob("outputs.safetensors"))


def test_label_outside_the_classes(tmp_path):
    labels = make_records().labels.copy()
    labels[4] = CLASSES
    with pytest.raises(MIAError, match=f"record 4 has label {CLASSES}, but the target has {CLASSES} classes"):
        extract(tmp_path, replace(make_records(), labels=labels))


def test_unwritable_store(tmp_path):
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises((MIAError, OSError)):
        extract(tmp_path / "store")


# ---- the store


def test_second_run_reuses_outputs(tmp_path, predictions, caplog):
    caplog.set_level("INFO", logger="mia_lightning")
    first = extract(tmp_path, private=make_records(1, source="private"))
    assert sum(predictions) == 2 * COUNT
    second = extract(tmp_path, private=make_records(1, source="private"))
    assert sum(predictions) == 2 * COUNT
    assert caplog.text.count("reused the stored outputs") == 2
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


def changed_pixel():
    images = make_records().images.copy()
    images[7, 1, 2, 3] ^= 1
    return {"public": replace(make_records(), images=images)}


def reordered():
    public = make_records()
    order = np.roll(np.arange(COUNT), 1)
    return {"public": replace(public, images=public.images[order], labels=public.labels[order], ids=public.ids[order])}


CHANGES = {
    "pixel": changed_pixel,
    "order": reordered,
    "dtype": lambda: {"public": make_records(dtype=np.float32)},
    "weights": lambda: {"target": replace(small_target(), digest="other weights")},
    "queries": lambda: {"queries": 2},
    "gradients": lambda: {"gradients": True},
    "mean": lambda: {"mean": (0.4, 0.5, 0.61)},
    "precision": lambda: {"hardware": replace(CPU, precision="bf16-mixed")},
}


@pytest.mark.parametrize("change", CHANGES)
def test_key_changes_with_outputs(tmp_path, predictions, change):
    extract(tmp_path)
    extract(tmp_path, **CHANGES[change]())
    assert sum(predictions) == 2 * COUNT


def test_code_is_part_of_the_key(tmp_path, predictions, monkeypatch):
    extract(tmp_path)
    monkeypatch.setattr(request, "source_digest", lambda names: "a later version")
    extract(tmp_path)
    assert sum(predictions) == 2 * COUNT


def test_key_ignores_the_rest(tmp_path, predictions):
    public = make_records()
    extract(tmp_path, public)
    extract(tmp_path, replace(public, ids=public.ids + 5, membership=1 - public.membership, source="renamed"))
    extract(tmp_path, public, hardware=replace(CPU, batch_size=5))
    assert sum(predictions) == COUNT


def test_one_flipped_bit_is_noticed_and_mended(tmp_path, predictions, caplog):
    first, _ = extract(tmp_path)
    (path,) = tmp_path.rglob("outputs.safetensors")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    second, _ = extract(tmp_path)
    assert "damaged" in caplog.text
    assert sum(predictions) == 2 * COUNT
    np.testing.assert_array_equal(first.logits, second.logits)


def test_a_damaged_shard_is_done_again(tmp_path, caplog):
    entry = CacheEntry(tmp_path, "00ff", {"logits": ArraySpec(np.float32, (6, 1, 2))})
    for start in (0, 3):
        entry.save_shard(f"{start}", {"index": np.arange(start, start + 3), "logits": np.ones((3, 1, 2), np.float32)})
    damaged = sorted(entry.shards.iterdir())[0]
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    (shard,) = entry.load_shards()
    assert shard["index"].tolist() == [3, 4, 5]
    assert not damaged.exists()
    assert "damaged" in caplog.text


def test_merge_wants_every_record_exactly_once():
    def shard(*rows):
        return {"index": np.array(rows), "logits": np.array(rows, np.float32)[:, None]}

    merged = {"logits": np.full((4, 1), -1, np.float32)}
    merge([shard(3, 1), shard(0, 2)], merged, 4, "x")
    np.testing.assert_array_equal(merged["logits"][:, 0], [0, 1, 2, 3])
    for shards, words in (
        ([shard(0, 1, 3)], "1 records are missing and 0 occur more than once"),
        ([shard(0, 1, 2), shard(2, 3)], "0 records are missing and 1 occur more than once"),
    ):
        with pytest.raises(RuntimeError, match=words):
            merge(shards, merged, 4, "x")


# ---- processes: killed, and many

SCRIPT = """
    import os, signal, sys
    from pathlib import Path

    sys.path[:0] = [{tests!r}, {root!r}]
    import numpy as np
    from helpers import extraction as here
    from mia_lightning.outputs import extraction, shards
    from mia_lightning.errors import MIAError
    from mia_lightning.runtime.hardware import Hardware

    folder, devices, count, kill_after, nodes = Path(sys.argv[1]), *map(int, sys.argv[2:])
    if kill_after:
        shards.SHARD_BYTES = 1  # a shard per batch
        save, written = extraction.CacheEntry.save_shard, []

        def save_then_die(self, name, arrays):
            save(self, name, arrays)
            written.append(name)
            if len(written) == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

        extraction.CacheEntry.save_shard = save_then_die
    devices = "auto" if {{"TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"}} & set(os.environ) else devices
    hardware = Hardware(accelerator="cpu", devices=devices, num_nodes=nodes, batch_size=4)
    try:
        outputs, _ = here.extract(folder / "store", here.make_records(count=count), hardware=hardware, queries=2)
    except MIAError as error:
        print("error:", error, file=sys.stderr)
        os._exit(2)
    np.savez(folder / f"{{os.getpid()}}.npz", logits=outputs.logits, features=outputs.features)
"""


def run_script(folder, *, devices=1, count=COUNT, kill_after=0):
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SCRIPT).format(tests=str(ROOT / "tests"), root=str(ROOT)))
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK")}
    process = Forked(python([path, folder, devices, count, kill_after, 1]), env=environment)
    return process.wait(), process.stderr.read()


def test_killed_extraction_goes_on_where_it_stopped(tmp_path, predictions):
    code, _ = run_script(tmp_path, kill_after=5)
    assert code == -signal.SIGKILL
    assert not list(tmp_path.rglob("outputs.safetensors"))
    hardware = replace(CPU, batch_size=4)
    resumed, _ = extract(tmp_path / "store", queries=2, hardware=hardware)
    assert sum(predictions) == COUNT - 5 * 4
    whole, _ = extract(tmp_path / "other", queries=2, hardware=hardware)
    np.testing.assert_array_equal(resumed.logits, whole.logits)
    assert not list((tmp_path / "store").rglob("shards/*"))


def test_fewer_records_than_processes(tmp_path):
    code, stderr = run_script(tmp_path, devices=2, count=1)
    assert code == 2
    assert "public: 1 records are fewer than the 2 processes; lower --hardware.devices" in stderr


def test_stored_outputs_have_a_description(tmp_path):
    extract(tmp_path)
    (path,) = tmp_path.rglob("outputs.json")
    description = json.loads(path.read_text())
    assert description["arrays"]["logits"] == ["float32", [COUNT, 1, CLASSES]]
    assert description["key_inputs"]["mean"] == list(MEAN)


def test_outputs_do_not_depend_on_batches(tmp_path):
    """A record alone in the last batch has the same bits as in a full one."""
    whole, _ = extract(tmp_path, queries=2, gradients=True)
    public = make_records()
    last = Records(public.ids[-1:], public.images[-1:], public.labels[-1:], public.membership[-1:], "one")
    alone, _ = extract(tmp_path, public, last, queries=2, gradients=True)
    np.testing.assert_array_equal(whole.logits, alone.logits)
    _, alone = extract(tmp_path / "b", public, last, queries=2, gradients=True)
    for name in ("logits", "features", "gradient_norms"):
        np.testing.assert_array_equal(getattr(whole, name)[-1:], getattr(alone, name))


# ---- memory that runs out


class LimitedMemoryNet(Small):
    """A network whose device holds only so many images."""

    def __init__(self, holds, error):
        super().__init__()
        self.holds, self.error = holds, error

    def forward(self, images):
        if len(images) > self.holds:
            raise self.error
        return super().forward(images)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("MPS backend out of memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "mps"])
def test_out_of_memory_halves_batch(tmp_path, caplog, error):
    torch.manual_seed(0)
    target = Target(with_statistics(LimitedMemoryNet(5, error)), CLASSES, "head", "small", "digest of small")
    options = {"queries": 2, "gradients": True}
    cramped, _ = extract(tmp_path / "a", target=target, hardware=replace(CPU, fuse=False), **options)
    messages = [record.getMessage() for record in caplog.records if "does not hold" in record.getMessage()]
    assert len(messages) == 2
    assert "16 images at a time, going on with 8" in messages[0]
    assert "8 images at a time, going on with 4" in messages[1]
    assert "may differ in the last bits" in messages[0]
    small, _ = extract(tmp_path / "b", hardware=replace(CPU, fuse=False, batch_size=4), **options)
    for name in ("logits", "features", "gradient_norms", "labels"):
        np.testing.assert_array_equal(getattr(cramped, name), getattr(small, name))


def test_out_of_memory_error_message(tmp_path):
    target = replace(small_target(), network=with_statistics(LimitedMemoryNet(0, OUT_OF_MEMORY[0])))
    with pytest.raises(MIAError, match="does not hold the pass of a single image"):
        extract(tmp_path, target=target, hardware=replace(CPU, fuse=False))


def test_runtime_error_is_not_oom(tmp_path):
    target = replace(small_target(), network=with_statistics(LimitedMemoryNet(0, RuntimeError("mat1 and mat2 shapes"))))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        extract(tmp_path, target=target, hardware=replace(CPU, fuse=False))


# ---- many processes


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"strategy": "telepathy"}, "invalid strategy name: `strategy='telepathy'`"),
        ({"accelerator": "abacus"}, "invalid accelerator name: `accelerator='abacus'`"),
        (
            {"strategy": "ddp_spawn", "devices": 2},
            "forked or spawned processes, as in notebooks, are not supported; use ddp in a script",
        ),
    ],
)
def test_missing_device_error_message(tmp_path, wrong, sentence):
    with pytest.raises(MIAError, match=re.escape(sentence)):
        extract(tmp_path, hardware=replace(CPU, **wrong))


def test_ddp_on_one_device_leaves_no_connection(tmp_path):
    outputs, _ = extract(tmp_path / "a", hardware=replace(CPU, devices=1, strategy="ddp"))
    assert not torch.distributed.is_initialized()
    assert "LOCAL_RANK" not in os.environ
    np.testing.assert_array_equal(outputs.logits, extract(tmp_path / "b")[0].logits)


def test_extra_process_error_message(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(MIAError, match="more processes were started than"):
        extract(tmp_path, hardware=replace(CPU, devices=1))
    monkeypatch.delenv("LOCAL_RANK")
    extract(tmp_path)
    monkeypatch.setenv("RANK", "abc")  # stale, where everything is stored
    with pytest.raises(MIAError, match="unset RANK"):
        extract(tmp_path)


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 9), st.integers(0, 50))
def test_records_are_assigned_once(count, world, batch_size, done):
    remaining = np.arange(count)[min(done, count - 1) :]
    served = []
    for rank in range(world):
        data = MembershipDataModule(
            Splits(make_records(count=count, size=2)), batch_size=batch_size, rows={"public": remaining}
        )
        data.trainer = SimpleNamespace(world_size=world, global_rank=rank)
        served += [batch["index"] for loader in data.predict_dataloader() for batch in loader]
    assert torch.cat(served).tolist() == remaining.tolist()
    assert max(map(len, served)) <= batch_size


def launched(folder, count, *, devices=2, launcher="helpers", kill_after=0):
    """Run the script under a launcher and return (exit code, what it said)."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SCRIPT).format(tests=str(ROOT / "tests"), root=str(ROOT)))
    nodes = 2 if launcher == "nodes" else 1
    arguments = [path, folder, devices // nodes, count, kill_after, nodes]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK")}
    commands = [arguments]
    variables = [{}]
    if launcher == "torchrun":
        options = ["--standalone", "--nproc-per-node", str(devices), "--local-addr", "127.0.0.1"]
        commands = [["-m", "torch.distributed.run", *options, *arguments]]
    if launcher == "slurm":
        job = {"SLURM_JOB_ID": str(15000 + os.getpid() % 1000), "SLURM_JOB_NAME": "audit", "SLURM_NTASKS": str(devices)}
        job |= {"SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": str(devices)}
        job |= {"MASTER_ADDR": "127.0.0.1"}
        variables = [job | {"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)} for n in range(devices)]
        commands *= devices
    if launcher == "nodes":  # two machines, as they see themselves, with a helper each
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        variables = [job | {"NODE_RANK": str(n)} for n in range(nodes)]
        commands *= nodes
    processes = [
        Forked(python(command), env=environment | own) for command, own in zip(commands, variables, strict=True)
    ]
    stderr = [process.communicate()[1] for process in processes]
    return max(process.returncode for process in processes), "\n".join(stderr)


@pytest.mark.parametrize(
    ("launcher", "devices", "count"),
    [
        pytest.param("helpers", 3, 46, marks=pytest.mark.extended),  # test_network_sockets compares two with one
        pytest.param("torchrun", 2, 41, marks=pytest.mark.extended),
        pytest.param("slurm", 2, 42, marks=pytest.mark.extended),
        pytest.param("nodes", 4, 47, marks=pytest.mark.extended),
    ],  # 46 = 3 x 15 + 1; 41 = 2 x 20 + 1: a batch of one
)
def test_launchers_are_bit_equal(tmp_path, launcher, devices, count):
    code, stderr = launched(tmp_path, count, devices=devices, launcher=launcher)
    assert code == 0, stderr
    (path,) = tmp_path.glob("*.npz")  # the other processes ended after extraction
    single, _ = extract(tmp_path / "other", make_records(count=count), queries=2, hardware=replace(CPU, batch_size=4))
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["logits"], single.logits)
        np.testing.assert_array_equal(arrays["features"], single.features)


@pytest.mark.extended
def test_resume_with_fewer_records_than_processes(tmp_path):
    code, _ = run_script(tmp_path, kill_after=11)  # 44 of 45 records
    assert code == -signal.SIGKILL
    code, stderr = launched(tmp_path, COUNT)
    assert code == 0, stderr
    (path,) = tmp_path.glob("*.npz")
    single, _ = extract(tmp_path / "other", queries=2, hardware=replace(CPU, batch_size=4))
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["logits"], single.logits)
