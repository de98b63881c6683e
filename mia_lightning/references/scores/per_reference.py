"""What each reference says, for learned attacks where references are too few for statistics over them."""

from dataclasses import dataclass

import numpy as np

from mia_lightning.references.moments import Statistic, reduce_queries
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.scores.base import Columns, ReferenceScore


@dataclass
class PerReferenceDifference(ReferenceScore):
    """The target's phi minus each reference's, apart for references IN and OUT of the record.

    Difficulty calibration (Watson et al. 2022) against every single reference. With one or two references most records
    have no reference IN or none OUT, so that a mean over either side does not exist; here the side that does not exist
    is 0 and a flag says which it is.
    """

    statistic: Statistic = "mean"
    """What is compared of the views of a record."""

    def columns(self, reference_outputs: ReferenceOutputs) -> Columns:
        """Return the mean difference as score, and columns per reference."""
        own = reduce_queries(reference_outputs.target, self.statistic)
        in_, out_ = reference_outputs.in_out_masks(slice(None))
        found: Columns = {"": np.zeros(len(own))}
        for k, phi in enumerate(reference_outputs.references):
            gap = own - reduce_queries(phi, self.statistic)
            found[""] += gap / len(reference_outputs.references)
            found[f"{k}_in"], found[f"{k}_out"] = gap * in_[k], gap * out_[k]
            found[f"{k}_is_in"] = in_[k].astype(np.float64)
        return found
