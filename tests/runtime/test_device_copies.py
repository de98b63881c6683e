"""Work on CUDA without waits of the host, counted on tensors without values."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.fake_cuda import CUDA, fake_cuda

from mia_lightning.outputs.datamodule import MembershipDataModule
from mia_lightning.outputs.lightning_module import InferenceModule
from mia_lightning.outputs.shards import ShardWriter
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits
from mia_lightning.references import inference, training, training_step
from mia_lightning.references.config import ReferenceTraining
from mia_lightning.references.training_data import MappedImages, TrainingData, on_device
from mia_lightning.references.training_step import DeviceSession
from mia_lightning.runtime.device_copies import AHEAD, HostCopies
from mia_lightning.targets.features import FeatureTap

RNG = np.random.default_rng(0)


def network():
    convolution = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
    return torch.nn.Sequential(
        convolution, torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 4)
    )


def images(count):
    return RNG.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)


def extracted(monkeypatch, batches, gradients=False):
    """Return counts and the current stream after the extraction loop over some batches of 4 records."""
    count = 4 * batches
    records = Records(np.arange(count), images(count), np.arange(count) % 4, np.zeros(count, np.int8), "random")
    data = MembershipDataModule(Splits(records), mean=(0.5,) * 3, std=(0.2,) * 3, batch_size=4)
    tap = FeatureTap(network(), "4").eval().requires_grad_(False)
    module = InferenceModule(tap, data.normalize, queries=18, gradients=gradients, batch_size=4)
    writer, arrived = ShardWriter({}), []
    monkeypatch.setattr(writer, "_gather", lambda split, arrays: arrived.append(split))
    trainer, loader = SimpleNamespace(datamodule=data), list(data.public_dataloader())
    with fake_cuda(monkeypatch) as (counts, stream):
        module.to(CUDA)
        counts.clear()
        for number, batch in enumerate(loader):
            on_cuda = data.transfer_batch_to_device(batch, CUDA, 0)
            assert on_cuda["images"].device.type == "cuda"
            outputs = module.predict_step(on_cuda, number)
            writer.write_on_batch_end(trainer, module, outputs, None, on_cuda, number, 0)
            assert len(arrived) == max(0, number + 1 - AHEAD)
    return counts, stream


def test_extraction_never_waits_for_the_newest_batches(monkeypatch):
    few, _ = extracted(monkeypatch, 7)
    counts, stream = extracted(monkeypatch, 12)
    for name in ("blocking to cuda", "blocking to cpu"):
        assert counts[name] == few[name] <= 2  # mean and std, once
    assert counts["asynchronous to cuda"] == 2 * 12
    assert counts["asynchronous to cpu"] == 4 * 12  # the index stays on the host
    assert counts["host waits"] > 0
    assert stream.ahead >= AHEAD


@pytest.mark.parametrize("way", ["resident", "streamed", "recorded"])
def test_epoch_without_host_waits(monkeypatch, tmp_path, way):
    def backward(loss):
        for parameter in model.parameters() if way != "recorded" else kept[0].parameters():
            parameter.grad = torch.empty_like(parameter)

    kept = []

    def record(run):
        kept.append(run.__self__.network)
        run()
        return run

    fabric = SimpleNamespace(device=CUDA, autocast=nullcontext)
    monkeypatch.setattr(training, "isolated_fabric", lambda *_, **__: fabric)
    monkeypatch.setattr(inference, "isolated_fabric", lambda *_: fabric)
    monkeypatch.setattr(inference, "prepare_for_inference", lambda *_: SimpleNamespace(to=lambda _: spare))
    monkeypatch.setattr(torch.autograd, "backward", backward)  # autograd itself needs a card
    monkeypatch.setattr(training, "float", lambda loss: 0.0, raising=False)  # the loss of an epoch, once
    monkeypatch.setattr(training, "optimizer_of", lambda network, _: torch.optim.SGD(network.parameters(), 0.1))
    monkeypatch.setattr(training_step, "deepcopy", lambda _: spare)
    recipe = ReferenceTraining(epochs=1, batch_size=4, shift=1)
    seen = []
    for count in (16, 40):
        material = TrainingData(images(count), np.arange(count) % 4, (0.5,) * 3, (0.2,) * 3, 4, 2)
        (model, queried, spare), options = (
            (network() for _ in range(3)),
            {"seed": 0, "checkpoint": tmp_path / "c", "device": "cuda"},
        )
        session = DeviceSession(material, record=record) if way == "recorded" else None
        with fake_cuda(monkeypatch, free=1 if way == "streamed" else 1 << 40) as (counts, stream):
            training.train_reference(model, material, np.ones(count, bool), recipe, session=session, **options)
            if way != "recorded":
                spare.to(CUDA)
                inference.compute_phi(queried, material, device="cuda")
        assert not counts["host waits"] or stream.ahead >= AHEAD
        seen.append({name: counts[name] for name in ("blocking to cuda", "blocking to cpu", "asynchronous to cpu")})
    assert seen[0] == seen[1]
    assert (counts["asynchronous to cuda"] >= 10) == (way == "streamed")


@pytest.mark.parametrize("free", [10_000, 100])
def test_resident_images_by_free_memory(monkeypatch, caplog, free):
    caplog.set_level("INFO")
    material = TrainingData(images(20), np.zeros(20, np.int64), (), (), 4, 1)
    with fake_cuda(monkeypatch, free=free):
        resident, labels = on_device(material, CUDA)
        assert labels.device.type == resident.device.type == "cuda"
    assert isinstance(resident, MappedImages) == (free < 2 * material.images.nbytes)
    assert ("stay in the device's memory" if free == 10_000 else "batch by batch from pinned memory") in caplog.text


def test_results_of_a_cpu_arrive_at_once_and_in_order():
    copies = HostCopies()
    for number in range(3):
        ((key, arrays),) = copies.add(number, {"x": torch.full((2,), number)})
        assert key == number
        np.testing.assert_array_equal(arrays["x"], [number, number])
    assert not list(copies.rest())
