"""Records: images, labels, membership and the readers of every format."""

from mia_lightning.records.records import UNKNOWN, Records, check_disjoint, separate_ids
from mia_lightning.records.splits import Splits

__all__ = ["UNKNOWN", "Records", "Splits", "check_disjoint", "separate_ids"]
