"""Data sets of `datasets` on disk, compared with the library."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from mia_lightning.errors import MIAError
from mia_lightning.records.readers import read_records

evaluation = transforms.Compose([transforms.Resize((6, 6)), transforms.ToTensor()])


def make_split(seed, count, sides=(8, 10)):
    rng = np.random.default_rng(seed)
    pixels = [rng.integers(0, 256, (sides[i % len(sides)], 8, 3), dtype=np.uint8) for i in range(count)]
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    values = {"image": [Image.fromarray(p) for p in pixels], "label": [i % 2 for i in range(count)]}
    return datasets.Dataset.from_dict(values, features=features)


def save(folder, **splits):
    import datasets

    datasets.DatasetDict(splits).save_to_disk(folder / "d")
    return str(folder / "d")


def test_images_with_a_transform(tmp_path):
    train, test = make_split(0, 4), make_split(1, 3)
    records = read_records(
        save(tmp_path, train=train, test=test), transform=evaluation, transform_name="own:evaluation"
    )
    expected = torch.stack([evaluation(row["image"]) for half in (train, test) for row in half])
    np.testing.assert_array_equal(records.images[:], expected)
    assert records.membership.tolist() == [1] * 4 + [0] * 3
    assert records.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert records.class_names == ("cat", "dog")


def test_images_of_one_size(tmp_path):
    train = make_split(0, 4, sides=(8,))
    records = read_records(save(tmp_path, train=train, test=train))
    np.testing.assert_array_equal(records.images[0].transpose(1, 2, 0), np.asarray(train[0]["image"]))


def test_table(tmp_path):
    import datasets

    table = datasets.Dataset.from_dict({"age": [1.5, 2.5], "label": [0, 1]})
    records = read_records(save(tmp_path, train=table, test=table))
    assert records.feature_names == ("age",)
    assert records.images.tolist() == [[1.5], [2.5], [1.5], [2.5]]
    assert records.membership.tolist() == [1, 1, 0, 0]


def test_odd_data_sets_are_one_sentence(tmp_path):
    source = save(tmp_path, train=make_split(0, 2), dev=make_split(1, 2))
    with pytest.raises(MIAError, match=r"d: has the splits train, dev; expected train .members. and test"):
        read_records(source)
    (tmp_path / "d" / "dataset_dict.json").write_text("{")
    with pytest.raises(MIAError, match="d: is damaged or not a data set of datasets"):
        read_records(source)
