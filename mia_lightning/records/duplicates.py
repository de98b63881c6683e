"""Duplicate images: exact copies by a hash of their pixels, near copies by a perceptual hash.

Copies matter in two ways. A picture that is both a member and a non-member contradicts itself: attacks look worse than
they are. A picture on both sides of a fold, or in both splits, lets a fitted attack recognize it: attacks look better.
The group ids returned here keep copies together in folds and resamples.

Near copies are found in linear time: images are reduced to a 64-bit difference hash (dHash) of 9x8 gray cells, hashes
are sorted under several rotations, and neighbors in each order are compared first by Hamming distance, then by the
correlation of their 16x16 gray thumbnails.

Sources: dHash, N. Krawetz, "Kind of Like That", 2013; sorting under permutations, M. Charikar, "Similarity estimation
techniques from rounding algorithms", STOC 2002.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mia_lightning.records.records import Records
from mia_lightning.records.vocabulary import UNKNOWN

Images = NDArray[np.uint8] | NDArray[np.float32]

BLOCK = 2048
"""Images worked on at once."""

SIDE = 16
"""Rows and columns of a thumbnail."""

FARTHEST = 10
"""Hamming distance of 64-bit hashes up to which two images are compared by thumbnail."""

CORRELATION = 0.985
"""Least correlation of the thumbnails of near copies."""

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in gray (ITU-R BT.601)."""

FLAT = 4.0
"""Standard deviation of gray values (0..255) below which a thumbnail has no structure to compare."""

ROTATIONS, NEIGHBORS = 16, 4
"""Orders of the hashes, and neighbors in each that an image is compared with."""


@dataclass(frozen=True)
class DuplicateCounts:
    """Records that have at least one copy, by where the copy is."""

    within: dict[str, int]
    """Per split's source: records with a copy in the same split."""

    across: int
    """Private records with a copy among the public ones."""

    contradicting: int
    """Records of known membership with a copy of the opposite membership."""


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Copies among the records of one split or of both."""

    exact: DuplicateCounts
    """Copies with the same pixels."""

    near: DuplicateCounts
    """Exact and near copies together."""

    groups: NDArray[np.int64]
    """(N + M,) group of each record, public first: copies, exact or near, share one; others have their own."""


def find_duplicates(public: Records, private: Records | None = None) -> Duplicates:
    """Return the copies within and across the splits; 40,000 images of 32x32 take a few seconds.

    Args:
        public: records whose membership is known.
        private: records to be scored, with images of the same shape.
    """
    splits = [split for split in (public, private) if split is not None]
    exact = np.unique(np.concatenate([pixel_hashes(split.pixels) for split in splits]), return_inverse=True)[1]
    if not public.is_image:  # only images have near copies
        count = _count(exact, splits)
        return Duplicates(count, count, exact.astype(np.int64))
    representatives = np.unique(exact, return_index=True)[1]
    pairs = near_pairs([split.pixels for split in splits], representatives)
    near = _components(len(representatives), pairs)[exact]
    return Duplicates(_count(exact, splits), _count(near, splits), near.astype(np.int64))


def pixel_hashes(images: Images) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each image's pixels, (N,).

    Float images on the grid of 8 bits (multiples of 1/255 in [0, 1]) have the hash of the same uint8 images.
    """
    hashes = np.empty(len(images), dtype=np.uint64)
    for start in range(0, len(images), BLOCK):
        block: Images = images[start : start + BLOCK]
        block = _eight_bits(block)
        for row, image in enumerate(block):
            digest = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
            hashes[start + row] = int.from_bytes(digest, "little")
    return hashes


def near_pairs(parts: Sequence[Images], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return pairs of near copies among some of the images, (P, 2) positions in `rows`.

    Args:
        parts: images (N, C, H, W) of each split, numbered one after the other.
        rows: (K,) ascending numbers of the images to compare.
    """
    thumbnails, hashes = _thumbnails(parts, rows)
    candidates = _candidates(hashes)
    keep = [
        pair[np.einsum("ij,ij->i", thumbnails[pair[:, 0]], thumbnails[pair[:, 1]]) >= CORRELATION]
        for pair in np.array_split(candidates, max(1, len(candidates) // 100_000))
    ]
    return np.concatenate(keep)


def _eight_bits(images: Images) -> Images:
    """Return float images on the 8-bit grid as uint8, other images and records as they are."""
    if images.dtype == np.uint8 or images.ndim != 4:
        return images
    steps = np.rint(images * np.float32(255))
    is_grid = bool((np.abs(steps / 255 - images) < 1e-6).all()) and steps.min() >= 0 and steps.max() <= 255
    return steps.astype(np.uint8) if is_grid else images


def _thumbnails(parts: Sequence[Images], rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """Return standardized gray thumbnails (K, SIDE²), zero where flat, and difference hashes (K,)."""
    thumbnails = np.zeros((len(rows), SIDE * SIDE), dtype=np.float32)
    hashes = np.zeros(len(rows), dtype=np.uint64)
    first = 0
    for part in parts:
        of_part = np.flatnonzero((rows >= first) & (rows < first + len(part)))
        scale = np.float32(1 if part.dtype == np.uint8 or len(part) == 0 or part[:BLOCK].max() > 2 else 255)
        for start in range(0, len(of_part), BLOCK):
            positions = of_part[start : start + BLOCK]
            gray = _gray(part[rows[positions] - first].astype(np.float32)) * scale
            thumbnails[positions] = _standardized(_resized(gray, SIDE, SIDE).reshape(len(positions), -1))
            cells = _resized(gray, 8, 9)
            bits = (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(positions), 64)
            hashes[positions] = np.packbits(bits, axis=1).view(">u8")[:, 0]
        first += len(part)
    return thumbnails, hashes


def _gray(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, H, W) luma, which JPEG keeps best; the mean of channels where they are not three."""
    if images.shape[1] != 3:
        return np.asarray(images.mean(axis=1), dtype=np.float32)
    return np.asarray(np.einsum("nchw,c->nhw", images, LUMA), dtype=np.float32)


def _resized(gray: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return (N, height, width) means over areas; cells share pixels where the size is not a multiple."""
    rows, columns = _area_weights(gray.shape[1], height), _area_weights(gray.shape[2], width)
    return np.asarray(rows @ gray @ columns.T, dtype=np.float32)


def _area_weights(size: int, cells: int) -> NDArray[np.float32]:
    """Return (cells, size) weights: the share of each pixel in each of the cells of equal width."""
    edges = np.linspace(0, size, cells + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None) / (size / cells), dtype=np.float32)


def _standardized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of mean 0 and length 1, so that products are correlations; rows without structure become 0."""
    centered = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    is_flat = length < FLAT * np.sqrt(values.shape[1])
    return np.where(is_flat, 0, centered / np.where(is_flat, 1, length)).astype(np.float32)


def _candidates(hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return pairs within the Hamming distance that are neighbors in some order of the rotated hashes, (P, 2)."""
    pairs = [np.empty((0, 2), dtype=np.intp)]
    for turn in range(ROTATIONS):
        shift = np.uint64(turn * 64 // ROTATIONS)
        rotated = hashes if turn == 0 else (hashes << shift) | (hashes >> (np.uint64(64) - shift))
        order = np.argsort(rotated, kind="stable")
        for step in range(1, min(NEIGHBORS, len(order) - 1) + 1):
            first, second = order[:-step], order[step:]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= FARTHEST
            pair = np.stack([first[close], second[close]], axis=1)
            pairs.append(np.sort(pair, axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _components(count: int, pairs: NDArray[np.intp]) -> NDArray[np.int32]:
    """Return the number of the connected component of each node, (count,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int32)


def _count(groups: NDArray[np.integer], splits: Sequence[Records]) -> DuplicateCounts:
    """Return the counts of copies, given the group of each record."""
    size = int(groups.max()) + 1
    split = np.repeat(np.arange(len(splits)), [len(records) for records in splits])
    membership = np.concatenate([records.membership for records in splits])
    per_split = [np.bincount(groups[split == index], minlength=size) for index in range(len(splits))]
    members, non_members = (np.bincount(groups[membership == side], minlength=size) for side in (1, 0))
    within = {
        records.source: int((per_split[index][groups[split == index]] > 1).sum())
        for index, records in enumerate(splits)
    }
    across = int((per_split[0][groups[split == 1]] > 0).sum()) if len(splits) > 1 else 0
    opposite = np.where(membership == 1, non_members[groups], members[groups])
    return DuplicateCounts(within, across, int(((opposite > 0) & (membership != UNKNOWN)).sum()))


def duplicate_notes(duplicates: Duplicates, public: Records, private: Records | None = None) -> list[str]:
    """Return what the copies mean for the figures, one sentence each; empty when there are none."""
    notes = []
    exact, near = duplicates.exact, duplicates.near
    if near.contradicting:
        notes.append(
            f"{near.contradicting:,} records have a copy of the opposite membership ({exact.contradicting:,} with "
            "identical pixels): the target saw both or neither, so attacks look weaker than they are; remove duplicates"
        )
    if near.across and private is not None:
        notes.append(
            f"{near.across:,} of {len(private):,} records of {private.source} are copies of records of {public.source} "
            f"({exact.across:,} with identical pixels): their membership can be looked up"
        )
    for source, count in near.within.items():
        if count:
            notes.append(
                f"{source}: {count:,} records have a copy in the same file ({exact.within[source]:,} with identical "
                "pixels)"
                + ("; keep copies in one fold by --evaluation.group_copies true" if source == public.source else "")
            )
    return notes


def with_copies_grouped(public: Records) -> Records:
    """Return the records with exact and near copies in one group, joined with the groups that they have."""
    copies = find_duplicates(public).groups
    if public.groups is None:
        return replace(public, groups=copies)
    given = np.unique(public.groups, return_inverse=True)[1]
    pairs = np.stack([given, copies + given.max() + 1], axis=1)
    joined = _components(int(pairs.max()) + 1, pairs)[given]
    return replace(public, groups=joined.astype(np.int64))
