"""Folders of images by class, with the user's transform."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from mia_lightning.errors import MIAError
from mia_lightning.outputs.datamodule import MembershipDataModule
from mia_lightning.records.duplicates import find_duplicates
from mia_lightning.records.lazy_images import LazyImages
from mia_lightning.records.readers import read_records
from mia_lightning.records.splits import Splits
from mia_lightning.runtime.store import array_digest

HERE = "tests.records.readers.test_image_folder"
evaluation = transforms.Compose([transforms.Resize(12), transforms.CenterCrop(8), transforms.ToTensor()])


def make_folder(folder, sides=(10, 14), classes=("cat", "dog"), splits=("train", "test")):
    rng = np.random.default_rng(0)
    for split in splits:
        for label in classes:
            (folder / split / label).mkdir(parents=True)
            for number in range(3):
                side = sides[number % len(sides)]
                pixels = rng.integers(0, 256, (side, side + 1, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.jpg", quality=95)
    return str(folder)


def read(source, transform=evaluation):
    return read_records(source, transform=transform, transform_name=f"{HERE}:evaluation")


def test_images_are_those_of_torchvision(tmp_path):
    source = make_folder(tmp_path)
    records = read(source)
    for half, split in enumerate(("train", "test")):
        expected = ImageFolder(f"{source}/{split}", transform=evaluation)
        rows = np.arange(6) + 6 * half
        np.testing.assert_array_equal(records.images[rows], torch.stack([image for image, _ in expected]))
        assert records.labels[rows].tolist() == [label for _, label in expected]
        assert (records.membership[rows] == 1 - half).all()
    assert isinstance(records.images, LazyImages)
    assert records.class_names == ("cat", "dog")
    assert records.ids[0] == "train/cat/0.jpg"
    assert records.known_columns["width of the file"].tolist() == [11, 15, 11] * 4


def test_loader_processes_decode_the_same(tmp_path):
    records = read(make_folder(tmp_path))
    data = MembershipDataModule(Splits(records), batch_size=5, workers=2)
    batches = list(data.public_dataloader())
    assert [len(batch["index"]) for batch in batches] == [5, 5, 2]
    images = torch.cat([data.normalize(batch["images"]) for batch in batches])
    np.testing.assert_array_equal(images, records.images[:])


def test_small_versions_serve_the_checks(tmp_path):
    source = make_folder(tmp_path)
    (tmp_path / "test" / "cat" / "9.jpg").write_bytes((tmp_path / "train" / "cat" / "0.jpg").read_bytes())
    records = read(source)
    assert records.pixels.shape == (13, 3, 32, 32)
    assert find_duplicates(records).exact.contradicting == 2


def test_digest_is_of_content_and_transform(tmp_path):
    source = make_folder(tmp_path)
    digests = [array_digest(read(source, transform).images) for transform in (evaluation, evaluation, small)]
    assert digests[0] == digests[1] != digests[2]
    half = read(source).rows(np.arange(6))
    assert half.images.shape == (6, 3, 8, 8)
    assert array_digest(half.images) != digests[0]


def test_without_transform_one_size_is_needed(tmp_path):
    assert read_records(make_folder(tmp_path / "a", sides=(10,))).images.shape == (12, 3, 10, 11)
    with pytest.raises(MIAError, match=r"others are .*; resize them by --data.transform package.module:function"):
        read_records(make_folder(tmp_path / "b"))


def small(image):
    return evaluation(image)[:, :4, :4]


def as_stored(image):
    return transforms.ToTensor()(image)


def as_image(image):
    return image


def as_bytes(image):
    return transforms.PILToTensor()(image)


def of_batches(images):
    return images.flip(1)


def with_nan(image):
    return evaluation(image) * float("nan")


random_crop = transforms.Compose([transforms.RandomCrop(8), transforms.ToTensor()])


@pytest.mark.parametrize(
    ("transform", "sentence"),
    [
        (as_stored, r"returned shape \(3, 14, 15\) for train/cat/1.jpg but \(3, 10, 11\) for the first image; resize"),
        (as_image, r"returned a Image for an image; expected a float tensor \(C, H, W\)"),
        (as_bytes, r"returned a tensor of shape \(3, 10, 11\) and torch.uint8 for an image"),
        (of_batches, "calling it on a PIL image .train/cat/0.jpg. failed: AttributeError"),
        (with_nan, "returned NaN or infinite values for train/cat/0.jpg"),
        (random_crop, "returns another tensor each time for one image; give the transform of the evaluation"),
    ],
)
def test_wrong_transform_is_one_sentence(transform, sentence, tmp_path):
    with pytest.raises(MIAError, match=f"--data.transform {HERE}:evaluation: .*{sentence}"):
        _ = read(make_folder(tmp_path), transform).images[:]


@pytest.mark.parametrize(
    ("break_", "sentence"),
    [
        (lambda f: (f / "test" / "dog").rename(f / "dog"), "test/dog/ is missing or has no images"),
        (lambda f: [p.unlink() for p in (f / "train" / "cat").iterdir()], "train/cat/ is missing or has no images"),
        (lambda f: (f / "test").rename(f / "other"), "has train/ but no test/; members belong into train/"),
        (lambda f: (f / "train" / "cat" / "0.jpg").rename(f / "train" / "0.jpg"), "0.jpg is outside of a class's"),
        (lambda f: (f / "test" / "cat" / "1.jpg").write_bytes(b"no image"), "test/cat/1.jpg is damaged or not an"),
        (lambda f: (f / "test" / "cat" / "1.jpg").write_bytes(b""), "test/cat/1.jpg is damaged or not an image"),
    ],
)
def test_broken_folder_is_one_sentence(break_, sentence, tmp_path):
    source = make_folder(tmp_path)
    break_(tmp_path)
    with pytest.raises(MIAError, match=sentence):
        read(source)


def test_validation_folder_is_non_members(tmp_path):
    source = make_folder(tmp_path)
    (tmp_path / "test").rename(tmp_path / "val")
    (tmp_path / "other").mkdir()
    records = read(source)
    assert set(records.membership.tolist()) == {0, 1}
    assert any("train/ is read as members, val/ as non-members" in note for note in records.notes)
    assert any("folders not used: other" in note for note in records.notes)


def test_deep_pixels_are_refused_not_clipped(tmp_path):
    source = make_folder(tmp_path)
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "test" / "cat" / "1.jpg", format="PNG")
    records = read_records(source, transform=evaluation, transform_name="own:evaluation")
    with pytest.raises(MIAError, match=r"test/cat/1\.jpg has I;16 pixels; expected 8 bits per channel"):
        records.images[:]
