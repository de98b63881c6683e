"""Duplicates, planted among random pictures with the low frequencies of photographs."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mia_lightning.records.duplicates import (
    duplicate_notes,
    find_duplicates,
    near_pairs,
    pixel_hashes,
    with_copies_grouped,
)
from mia_lightning.records.records import Records


def pictures(count, seed=0, side=32):
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 40, (count, 3, 8, 8)).repeat(side // 8, 2).repeat(side // 8, 3)
    return np.clip(128 + coarse + rng.normal(0, 8, (count, 3, side, side)), 0, 255).astype(np.uint8)


def records(images, membership, source="a.npz", first=0):
    n = len(images)
    ids = np.arange(first, first + n)
    return Records(ids, images, np.zeros(n, np.int64), np.broadcast_to(membership, n).astype(np.int8), source)


def jpeg(image, quality=60):
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)).transpose(2, 0, 1)


CHANGES = {
    "identical": lambda image: image,
    "JPEG": jpeg,
    "brighter": lambda image: np.minimum(image.astype(int) + 12, 255).astype(np.uint8),
    "one channel": lambda image: image + np.array([3, 0, 0], np.uint8)[:, None, None] * (image < 250),
    "noise": lambda image: np.clip(image + np.random.default_rng(1).normal(0, 5, image.shape), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_planted_copies_are_counted(change):
    public, private = pictures(300), pictures(200, seed=1)
    public[100:110] = [CHANGES[change](image) for image in public[:10]]
    private[:20] = [CHANGES[change](image) for image in public[40:60]]
    membership = np.arange(300) < 100
    duplicates = find_duplicates(records(public, membership), records(private, -1, "b.npz"))
    counts = duplicates.near
    assert counts.within == {"a.npz": 20, "b.npz": 0}
    assert (counts.across, counts.contradicting) == (20, 20)
    assert len(np.unique(duplicates.groups)) == 500 - 30
    np.testing.assert_array_equal(duplicates.groups[:10], duplicates.groups[100:110])
    np.testing.assert_array_equal(duplicates.groups[40:60], duplicates.groups[300:320])
    if change == "identical":
        assert duplicates.exact == counts
        assert "identical pixels" in duplicate_notes(duplicates, records(public, membership), None)[0]
    else:
        assert duplicates.exact.within == {"a.npz": 0, "b.npz": 0}


def test_different_pictures_are_not_copies():
    half = records(pictures(3000), 1)
    assert duplicate_notes(find_duplicates(half), half) == []


def test_flat_pictures_are_copies_only_when_identical():
    images = np.stack([np.full((3, 32, 32), value, np.uint8) for value in (1, 2, 3, 3)])
    assert find_duplicates(records(images, 1)).near.within == {"a.npz": 2}


def test_hash_of_floats_on_the_grid_is_that_of_bytes():
    images = pictures(5)
    floats = (images / 255).astype(np.float32)
    np.testing.assert_array_equal(pixel_hashes(images), pixel_hashes(floats))
    assert pixel_hashes(floats * np.float32(0.999))[0] != pixel_hashes(floats)[0]
    mixed = find_duplicates(records(images, 1), records((jpeg(images[0])[None] / 255).astype(np.float32), 0, "b", 9))
    assert mixed.near.across == 1


def test_one_record_and_tiny_pictures():
    assert len(near_pairs([pictures(1)], np.array([0]))) == 0
    tiny = np.random.default_rng(0).integers(0, 255, (50, 1, 3, 3), np.uint8)
    assert find_duplicates(records(tiny, 0)).near.contradicting == 0


def test_copies_of_one_picture_stay_linear():
    images = np.repeat(pictures(1), 2000, axis=0)
    duplicates = find_duplicates(records(images, np.arange(2000) % 2))
    assert duplicates.exact.contradicting == 2000
    assert duplicates.groups.max() == 0


def test_copies_join_the_groups_that_records_have():
    images = pictures(6)
    given = records(np.concatenate([images, images[:2]]), np.arange(8) % 2)
    groups = with_copies_grouped(given).groups
    assert groups[6] == groups[0]
    assert len(np.unique(groups)) == 6
    people = with_copies_grouped(replace(given, groups=np.array([0, 1, 2, 3, 4, 4, 5, 5]))).groups
    assert people[4] == people[5]
    assert people[0] == people[1] == people[6] == people[7]  # 6 and 7 are one person, and copies of 0 and 1
    assert len(np.unique(people)) == 4
