"""The data module: whole batches in order, normalized on the device."""

import numpy as np
import pytest
import torch

from mia_lightning.errors import MIAError
from mia_lightning.outputs.datamodule import MembershipDataModule
from mia_lightning.records.normalization import channel_statistics
from mia_lightning.records.records import Records
from mia_lightning.records.splits import Splits

RNG = np.random.default_rng(0)


def records(count, dtype=np.uint8):
    images = RNG.integers(0, 256, (count, 3, 6, 6), dtype=np.uint8)
    images = images if dtype == np.uint8 else images.astype(np.float32) * 3 - 100
    return Records(np.arange(count), images, np.arange(count) % 4, np.zeros(count, np.int8), f"{count} records")


def test_loaders_serve_every_record_in_order():
    public, private = records(23), records(8)
    data = MembershipDataModule(Splits(public, private), batch_size=5)
    for half, loader in ((public, data.public_dataloader()), (private, data.private_dataloader())):
        batches = list(loader)
        assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(len(half)))
        assert [len(batch["index"]) for batch in batches][:-1] == [5] * ((len(half) - 1) // 5)
        np.testing.assert_array_equal(torch.cat([batch["images"] for batch in batches]), half.images)
        np.testing.assert_array_equal(torch.cat([batch["labels"] for batch in batches]), half.labels)
    assert len(data.predict_dataloader()) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_normalized_on_device(dtype):
    public = records(9, dtype)
    data = MembershipDataModule(Splits(public), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0), batch_size=9)
    (batch,) = data.public_dataloader()
    assert batch["images"].numpy().dtype == dtype  # as it came, until it is on the device
    normalized = data.normalize(batch["images"])
    scaled = public.images / (255 if dtype == np.uint8 else 1)
    expected = (scaled - np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)) / np.array([1, 2, 4]).reshape(3, 1, 1)
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized, expected, rtol=1e-4, atol=1e-5)


def test_statistics_come_from_public_images():
    public = records(50)
    mean, std = channel_statistics(public.images)
    scaled = public.images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), rtol=1e-9)
    assert MembershipDataModule(Splits(public, records(3))).mean == mean


def test_a_constant_channel_is_not_divided_by_zero():
    assert channel_statistics(np.full((4, 1, 3, 3), 7, np.uint8))[1] == (1.0,)


def test_one_value_per_channel():
    with pytest.raises(MIAError, match=r"--data\.mean has 1 values but the images of 4 records have 3 channels"):
        MembershipDataModule(Splits(records(4)), mean=(0.5,), std=(0.5, 0.5, 0.5))
