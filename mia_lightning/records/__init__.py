"""Records: images, labels, membership and the readers of every format."""

from mia_lightning.records.columns import make_records
from mia_lightning.records.halves import align_class_names, check_disjoint, separate_ids
from mia_lightning.records.records import UNKNOWN, Records
from mia_lightning.records.splits import Splits

__all__ = ["UNKNOWN", "Records", "Splits", "align_class_names", "check_disjoint", "make_records", "separate_ids"]
