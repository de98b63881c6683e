"""Query sets: the augmented views of a record that every model is queried on, in a fixed order."""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from mia_lightning.errors import MIAError
from mia_lightning.targets.imported import first_line, import_callable

OPTION = "--extraction.views"

REACH = {1: 0, 2: 0, 18: 1, 50: 2}
"""Largest shift in pixels of each query set."""


def shifts(queries: int) -> list[tuple[int, int]]:
    """Return the (down, right) shifts of a query set in their order, (0, 0) first."""
    reach = REACH[queries]
    steps = range(-reach, reach + 1)
    return sorted(product(steps, steps), key=lambda shift: (shift != (0, 0), shift))


def views(images: Tensor, queries: int, function: str | None = None) -> Iterator[Tensor]:
    """Yield each view of a batch, (B, C, H, W): every shift of the images, then every shift mirrored.

    1 is the stored image, 2 adds its mirror image, 18 shifts both by up to 1 pixel after reflection at the border, 50
    by up to 2. The views are slices of one padded batch. A function of the user's, "package.module:function", replaces
    all but the first, for records (B, ...) of any shape.
    """
    if function is not None:
        user_view = import_callable(function, OPTION)
        yield images
        for query in range(1, queries):
            yield _checked(user_view(images.clone(), query), images, query, function)
        return
    reach, (height, width) = REACH[queries], images.shape[-2:]
    padded = F.pad(images, (reach,) * 4, mode="reflect") if reach else images
    for mirrored in (False, True) if queries > 1 else (False,):
        for down, right in shifts(queries):
            view = padded[..., reach + down : reach + down + height, reach + right : reach + right + width]
            yield view.flip(-1) if mirrored else view


def check_views(function: str, sample: Tensor, queries: int) -> None:
    """Compute the views of a few records (B, ...) twice.

    Raises:
        MIAError: the function fails, returns another shape or dtype, or other views the second time.
    """
    try:
        first, second = (list(views(sample, queries, function)) for _ in range(2))
    except MIAError:
        raise
    except Exception as error:
        raise MIAError(
            f"{OPTION} {function}: {first_line(error)}; it is called with a batch (B, ...) and the number of the view"
        ) from error
    if any(not torch.equal(*pair) for pair in zip(first, second, strict=True)):
        raise MIAError(
            f"{OPTION} {function}: returned other views when it was called again; draw its random numbers by a "
            "generator with the number of the view as its seed"
        )


def _checked(view: object, batch: Tensor, query: int, function: str) -> Tensor:
    if isinstance(view, Tensor) and view.shape == batch.shape and view.dtype == batch.dtype:
        return view
    returned = f"{tuple(view.shape)} {view.dtype}" if isinstance(view, Tensor) else type(view).__name__
    expected = f"{tuple(batch.shape)} {batch.dtype}"
    raise MIAError(f"{OPTION} {function}: returned {returned} as view {query} of a batch {expected}; return its shape")
