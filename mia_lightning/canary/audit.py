"""Audit by canaries: the coins are checked against what was trained on, then bounds follow from the scores."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_lightning.canary.config import AuditConfig
from mia_lightning.canary.make import digests
from mia_lightning.canary.manifest import Manifest, check_commitment, read_manifest
from mia_lightning.errors import MIAError
from mia_lightning.evaluation.assessment import Bound
from mia_lightning.evaluation.config import OneRun
from mia_lightning.evaluation.privacy import privacy_bounds
from mia_lightning.metrics.roc import Evaluation, evaluate
from mia_lightning.records.readers import read_records
from mia_lightning.records.table_columns import id_column
from mia_lightning.records.tables import read_table
from mia_lightning.report.files import versions
from mia_lightning.runtime.atomic import write_json
from mia_lightning.scores.keys import read_submission

TABLES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True, eq=False)
class CanaryAudit:
    """Result of an audit by canaries."""

    manifest: Manifest
    evaluation: Evaluation
    """Figures of the scores on the canaries."""

    bounds: tuple[Bound, ...]

    @property
    def reported(self) -> Bound:
        """The bound declared beforehand."""
        return next(bound for bound in self.bounds if bound.reported)


def audit(config: AuditConfig) -> CanaryAudit:
    """Return the one-run bounds of a target that was trained on canaries.

    Raises:
        MIAError: any mistake in the options or files; the coins were not followed; the scores are not of the canaries.
    """
    if len(config.folder) != 1:
        raise MIAError(f"{len(config.folder)} folders of canaries are named; name the one that canaries make wrote")
    if config.trained is None:
        raise MIAError("--trained is not given; name the records that the target was trained on (images or ids)")
    if config.scores is None:
        raise MIAError("--scores is not given; name a file of ids and score of all canaries")
    manifest = read_manifest(config.folder[0])
    check_commitment(manifest, config.commitment)
    check_coins(manifest, _trained(config.trained, manifest), Path(config.trained).name)
    member = manifest.membership
    scores = read_submission(config.scores, (np.array(manifest.ids), member), "the manifest")
    bounds = privacy_bounds(
        "canaries",
        scores,
        member,
        delta=config.delta,
        confidence=config.confidence,
        seed=config.seed,
        one_run=OneRun(random_inclusion=True),
        reported=config.bound,
    )
    result = CanaryAudit(manifest, evaluate(scores, member, (0.01, 0.05, 0.1)), bounds)
    if config.output is not None:
        write_json(Path(config.output), content(result))
    return result


def check_coins(manifest: Manifest, trained: NDArray[np.bool_], source: str) -> None:
    """Check that exactly the canaries whose coin is 1 were trained on, and that the coins look fair.

    Args:
        manifest: Of the canaries.
        trained: (m,) whether each was trained on.
        source: Name of the trained records, for messages.

    Raises:
        MIAError: the coins were not followed, or are unlikely to be fair (p below 1e-6).
    """
    from scipy.stats import binomtest  # slow to import

    coins = manifest.membership == 1
    absent, extra = int((coins & ~trained).sum()), int((~coins & trained).sum())
    if absent or extra:
        raise MIAError(
            f"{source}: the coins were not followed: {absent} canaries to be trained on are missing and {extra} to be "
            "left out are present; train on the other data and exactly train.npz"
        )
    if float(binomtest(int(coins.sum()), len(coins)).pvalue) < 1e-6:
        raise MIAError(f"{int(coins.sum())} of {len(coins)} coins are 1, which fair coins are not; make canaries again")


def content(result: CanaryAudit) -> dict[str, Any]:
    """Return the result as plain values, ready for JSON."""
    return {
        "pattern": result.manifest.pattern,
        "commitment": result.manifest.commitment,
        "canaries": len(result.manifest.ids),
        "trained_on": int(result.manifest.membership.sum()),
        "figures": result.evaluation.to_dict(),
        "bounds": [asdict(bound) for bound in result.bounds],
        "versions": versions(),
    }


def _trained(path: str, manifest: Manifest) -> NDArray[np.bool_]:
    """Return (m,) whether each canary is among the trained records: by content, in tables without images by id."""
    if Path(path).suffix.lower() in TABLES:
        table = read_table(path)
        name = next((table.find(word) for word in ("id", "ids") if table.find(word)), None)
        if name is None:
            raise MIAError(f"{table.source}: has no column id; name the records that were trained on")
        return np.isin(np.array(manifest.ids), id_column(table, name).astype(np.str_))
    records = read_records(path)
    present = set(digests(records.images, records.labels))
    return np.array([content in present for content in manifest.contents])


def lines(result: CanaryAudit) -> Sequence[str]:
    """Return the result for the terminal, the reported bound first."""
    m, trained = len(result.manifest.ids), int(result.manifest.membership.sum())
    evaluation = result.evaluation
    shown = [
        f"{m:,} {result.manifest.pattern} canaries, {trained:,} trained on: AUC {evaluation.auc:.3f} "
        f"[{evaluation.auc_low:.3f}-{evaluation.auc_high:.3f}]"
    ]
    for bound in sorted(result.bounds, key=lambda bound: not bound.reported):
        use = "reported" if bound.reported else "sensitivity"
        figure = f"no bound: {bound.refusal}" if bound.epsilon is None else f"epsilon >= {bound.epsilon:.2f}"
        shown.append(
            f"{use}: {figure} at delta {bound.delta:g}, confidence {100 * bound.confidence:g}%, by {bound.method}"
        )
    return shown
