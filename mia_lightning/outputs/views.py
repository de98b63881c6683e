"""Query sets: the augmented views of a record that every model is queried on, in a fixed order."""

from collections.abc import Iterator
from itertools import product

from torch import Tensor
from torch.nn import functional as F

REACH = {1: 0, 2: 0, 18: 1, 50: 2}
"""Largest shift in pixels of each query set."""


def shifts(queries: int) -> list[tuple[int, int]]:
    """Return the (down, right) shifts of a query set in their order, (0, 0) first."""
    reach = REACH[queries]
    steps = range(-reach, reach + 1)
    return sorted(product(steps, steps), key=lambda shift: (shift != (0, 0), shift))


def views(images: Tensor, queries: int) -> Iterator[Tensor]:
    """Yield each view of a batch, (B, C, H, W): every shift of the images, then every shift mirrored.

    1 is the stored image, 2 adds its mirror image, 18 shifts both by up to 1 pixel after reflection at the border, 50
    by up to 2. The views are slices of one padded batch.
    """
    reach, (height, width) = REACH[queries], images.shape[-2:]
    padded = F.pad(images, (reach,) * 4, mode="reflect") if reach else images
    for mirrored in (False, True) if queries > 1 else (False,):
        for down, right in shifts(queries):
            view = padded[..., reach + down : reach + down + height, reach + right : reach + right + width]
            yield view.flip(-1) if mirrored else view
