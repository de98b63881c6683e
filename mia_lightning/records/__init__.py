"""Records: images, labels, membership and the readers of every format."""

from mia_lightning.records.records import UNKNOWN, Records, check_disjoint

__all__ = ["UNKNOWN", "Records", "check_disjoint"]
