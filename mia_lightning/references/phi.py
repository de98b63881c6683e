"""phi of the target under the views that the references are queried with."""

import numpy as np
from numpy.typing import NDArray

from mia_lightning.errors import MIAError
from mia_lightning.outputs.outputs import Outputs
from mia_lightning.outputs.views import shifts
from mia_lightning.signals import functional as F


def target_phi(
    outputs: Outputs, queries: int, temperature: float = 1.0, own_views: bool = False
) -> NDArray[np.float32]:
    """Return phi (N, Q) of the target under a query set that its outputs include.

    Logits are divided by the temperature first.

    Raises:
        MIAError: the outputs contain fewer views than needed.
    """
    columns = view_columns(outputs.logits.shape[1], queries, own_views=own_views)
    phi = np.empty((len(outputs.labels), queries), np.float32)
    for start in range(0, len(phi), 4096):
        part = slice(start, start + 4096)
        logits = outputs.logits[part][:, columns].astype(np.float64) / temperature
        phi[part] = F.phi(logits, outputs.labels[part, None])
    return phi


def view_columns(available: int, wanted: int, *, own_views: bool = False) -> list[int]:
    """Return the columns of a smaller query set within a larger one: the first ones of views of the user's own.

    Raises:
        MIAError: the wanted set is the larger one.
    """
    if wanted > available:
        raise MIAError(
            f"--references.queries is {wanted} but the target is queried with {available} views; raise "
            f"--extraction.queries to {wanted}"
        )
    if own_views:
        return list(range(wanted))
    outer, inner = shifts(available), shifts(wanted)
    places = [outer.index(shift) for shift in inner]
    return places if wanted == 1 else places + [len(outer) + column for column in places]
