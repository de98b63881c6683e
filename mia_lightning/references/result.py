"""Reference models of a run, as later stages take them."""

from dataclasses import dataclass

from mia_lightning.references.fidelity import FidelityCheck
from mia_lightning.references.outputs import ReferenceOutputs
from mia_lightning.references.store import ReferenceRecord


@dataclass(frozen=True, eq=False)
class References:
    """The reference models of a run."""

    reference_outputs: ReferenceOutputs
    """phi of all records, public first."""

    rows: tuple[ReferenceRecord, ...]
    """Each reference, those left out included; empty where phi was imported."""

    checks: tuple[FidelityCheck, ...]
    """Whether the references behave like the target."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Details of the checks that did not pass."""
        return tuple(check.detail for check in self.checks if check.status != "passed")
