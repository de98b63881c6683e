"""Verdicts, notes, guards, boards and claims by simulation: rows of promise, scenario, measured, error, nominal."""

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.honesty_parts import Row, share
from mia_lightning.attacks.lightgbm import LightGBM
from mia_lightning.evaluation.assess import assess, increments
from mia_lightning.evaluation.blind_baseline import BLIND, blind_baseline, blind_scores, combined_scores
from mia_lightning.evaluation.claims import claim, claim_new
from mia_lightning.evaluation.column_audit import column_audit
from mia_lightning.evaluation.comparison import differences, paired_bootstrap
from mia_lightning.evaluation.file_notes import file_notes
from mia_lightning.evaluation.leaderboard import rank_submissions
from mia_lightning.metrics.roc import evaluate
from mia_lightning.report.contents import Report
from mia_lightning.report.evidence import evidence
from mia_lightning.report.levels import WIDEST, adds, enough_records
from mia_lightning.report.verdict import verdict
from mia_lightning.scores.crossfit import assign_folds, cross_fit
from mia_lightning.scores.scored_records import ScoredRecords
from mia_lightning.signals.table import SignalTable


def halves(n: int) -> np.ndarray:
    """Return (n,) memberships, half of them 1."""
    return np.repeat([1, 0], [n // 2, n - n // 2]).astype(np.int8)


def verdicts(members: int, non_members: int, repetitions: int) -> Iterator[Row]:
    """Yield the false-positive rates of the verdict's evidence."""
    member = np.repeat([1, 0], [members, non_members]).astype(np.int8)
    rng = np.random.default_rng((1, members, non_members))
    attacks = [
        evidence({"a": evaluate(rng.normal(size=len(member)), member, (0.01, 0.05))})["a"] for _ in range(repetitions)
    ]
    name = f"null, {members:,} + {non_members:,}"
    yield share("verdict: recognized at a low FPR", name, [row.at_low_rates for row in attacks], 0, 0.025)
    yield share("verdict: AUC above chance", name, [row.on_average for row in attacks], 0, 0.025)


def many_attacks(repetitions: int) -> Iterator[Row]:
    """Yield the rate of findings among twenty attacks that know nothing."""
    member, rng, hits = halves(800), np.random.default_rng(2), []
    for _ in range(repetitions):
        tested = evidence({f"a{i}": evaluate(rng.normal(size=800), member, (0.01, 0.05)) for i in range(20)})
        hits.append(any(row.at_low_rates for row in tested.values()))
    yield share("verdict: any of 20 attacks", "null, 400 + 400", hits, 0, 0.025)


def sufficient_records(members: int, non_members: int, attacks: int, repetitions: int) -> Iterator[Row]:
    """Yield how often the number of records that a report states as enough excludes an AUC of 0.6."""
    rng, start = np.random.default_rng((2, members)), np.repeat([1, 0], [members, non_members])
    enough = enough_records(evaluate(rng.normal(size=len(start)), start, ()), attacks)
    member, hits = np.repeat([1, 0], enough), []
    for _ in range(repetitions):
        tops = [evaluate(rng.normal(size=len(member)), member, ()).auc_high for _ in range(attacks)]
        hits.append(max(tops) <= WIDEST)
    name = f"null, attacks: {attacks}, instead of {members} + {non_members:,} records {enough[0]:,} + {enough[1]:,}"
    yield share("stated number of records excludes an AUC above 0.6", name, hits, 0.9, 1)


def layout(repetitions: int) -> Iterator[Row]:
    """Yield the agreement of verdict and figures of sorted and shuffled copies, and the rates of notes."""
    same, noted, silent = [], [], []
    for repetition in range(repetitions):
        rng = np.random.default_rng((3, repetition))
        member = rng.integers(0, 2, 600).astype(np.int8)
        scores, ids = rng.normal(size=600) + member, rng.permutation(6000)[:600]
        labels = rng.integers(0, 5, 600)
        outcomes = []
        for order in (np.arange(600), np.argsort(-member, kind="stable")):
            given = ScoredRecords(ids[order], member[order], {"a": scores[order]}, labels[order], "x")
            report = Report(assess(given, bootstrap=100), "a", "named", {"mia-lightning": ""})
            outcomes.append((verdict(report), report.assessment.attacks, report.assessment.bounds))
            (noted if len(outcomes) == 2 else silent).append(bool(file_notes(given, seed=0)))
        same.append(outcomes[0] == outcomes[1])
    yield share("sorted and shuffled file agree", "verdict, figures, bounds, 600 records", same, 1, 1)
    yield share("row order noted", "sorted by membership", noted, 1, 1)
    yield share("row order or ids noted", "random order and ids", silent, 0, 0.002)


def blind(repetitions: int) -> Iterator[Row]:
    """Yield the rates of warnings of the blind baseline, and of an addition to it by an attack that adds nothing."""
    warned, added, by_ties = [], [], []
    member = halves(600)
    for repetition in range(repetitions):
        rng = np.random.default_rng((4, repetition))
        records = ScoredRecords(np.arange(600), member, {"a": np.zeros(600)}, rng.integers(0, 10, 600), "x")
        features = rng.normal(size=(600, 5))
        scores = blind_scores(features, member, folds=5, seed=0)
        check = blind_baseline(records, {"columns": features}, scores, folds=5, seed=0, increments=())
        warned.append(check.status == "warn")
        features[:, 0] += 2 * member  # a difference without the model, which the attack does not read
        base = blind_scores(features, member, folds=5, seed=0)
        together = combined_scores(base, rng.normal(size=600), member, folds=5, seed=0)
        resampled = paired_bootstrap({"a": together, BLIND: base}, member, (0.05,), resamples=200, seed=0)
        added.append(any(gain.low > 0 for gain in differences(resampled, [("a", BLIND)]) if gain.figure == "auc"))
        labels = np.where(member == 1, rng.integers(0, 6, 600), rng.integers(4, 10, 600))
        noisy = {f"a{k}": rng.normal(size=600) - labels for k in range(3)}
        records = ScoredRecords(np.arange(600), member, noisy, labels, "x")
        base = blind_scores(labels[:, None].astype(np.float64), member, folds=5, seed=0)
        by_ties.append(any(map(adds, increments(records, base, [0.05], 200, 5, repetition))))
    yield share("blind baseline warns", "noise, 300 + 300", warned, 0, 0.01)
    yield share("attack adds to a confounder", "attack is noise", added, 0, 0.025)
    yield share("any of three attacks adds to a confounder", "attacks are noisy copies of it", by_ties, 0, 0.025)


def audit(repetitions: int) -> Iterator[Row]:
    """Yield the false-positive rate of the column audit and its power for a count that carries the label."""
    false, results = [], []
    for repetition in range(repetitions):
        rng = np.random.default_rng((5, repetition))
        keep = np.argsort(rng.random((16, 600)), axis=0) < 8
        member = keep[0].astype(np.int8)
        honest = {str(i): rng.normal(size=600) for i in range(20)}
        false.append(column_audit(honest, member).status == "warn")
        count = {"references IN": keep[1:].sum(axis=0).astype(np.float64)}
        results.append(column_audit(count, member).status == "warn")
    yield share("column audit warns", "20 columns of noise, 600 records", false, 0, 0.001)
    yield share("column audit warns", "one model of a balanced matrix, 15 references", results, 1, 1)


def boards(repetitions: int) -> Iterator[Row]:
    """Yield the simultaneous coverage of ranks, and the resolution of a ladder of submissions."""
    member, truth = halves(2000), np.linspace(0, 1.5, 8)
    covered, separated = [], []
    for repetition in range(repetitions):
        rng = np.random.default_rng((7, repetition))
        base = rng.normal(size=2000)
        scores = {f"s{i}": base + 0.7 * rng.normal(size=2000) + shift * member for i, shift in enumerate(truth)}
        places = {index.name: index for index in rank_submissions(scores, member, 0.05, resamples=300, seed=0)}
        true_rank = {f"s{i}": 8 - i for i in range(8)}
        covered.append(all(p.rank_low <= true_rank[name] <= p.rank_high for name, p in places.items()))
        separated.append(places["s0"].rank_low > places["s7"].rank_high)
    yield share("ranks of all submissions covered", "ladder of 8", covered, 0.95, 1)
    yield share("ends of a ladder separated", "ladder of 8", separated, 1, 1)


def claims(repetitions: int) -> Iterator[Row]:
    """Yield the false-discovery rate of claimed lists, for the known records and for new ones."""
    for base in (0.5, 0.1, 0.01):
        known, new = [], []
        rng = np.random.default_rng((8, int(100 * base)))
        for _ in range(repetitions):
            member = halves(2000)
            scores = rng.normal(size=2000) + 3 * member
            rows = claim(scores, member).claimed[0.1]
            known.append((member[rows] == 0).mean() if len(rows) else 0.0)
            fresh = (rng.random(2000) < base).astype(np.int8)
            rows = claim_new(rng.normal(size=2000) + 3 * fresh, scores[member == 0]).claimed[0.1]
            new.append((fresh[rows] == 0).mean() if len(rows) else 0.0)
        for name, values in (("known records, 50% members", known), (f"new records, {base:.0%} members", new)):
            if name.startswith("known") and base != 0.5:
                continue
            yield false_claims(name, values)


def false_claims(name: str, values: Sequence[float]) -> Row:
    """Return the row of the shares of non-members in claimed lists, 0 for an empty one."""
    return Row(
        "false claims at q = 10%", name, float(np.mean(values)), float(np.std(values) / np.sqrt(len(values))), 0, 0.1
    )


def private_claims(repetitions: int, public: int = 1000, private: int = 1000) -> Iterator[Row]:
    """Yield the false-discovery rate on records of unknown membership of LightGBM fitted on public ones."""
    attack = {"a": LightGBM(["x*"], n_estimators=40, num_leaves=7, min_child_samples=30, n_jobs=1)}
    shares: dict[float, list[float]] = {0.5: [], 0.1: [], 0.01: []}
    for repetition in range(repetitions):
        rng = np.random.default_rng((9, repetition))
        member = np.concatenate([halves(public), *((rng.random(private) < base).astype(np.int8) for base in shares)])
        columns = {f"x{k}": rng.normal(size=len(member)) + (3 * member if k == 0 else 0) for k in range(6)}
        fold = assign_folds(np.where(np.arange(len(member)) < public, member, -1).astype(np.int8), folds=5, seed=0)
        table = SignalTable(columns, np.zeros(len(member), np.int64), 1)
        fit = cross_fit(attack, table, member, fold, seed=0)["a"]
        assert fit.single is not None
        calibration = fit.scores[:public][member[:public] == 0]
        for number, values in enumerate(shares.values()):
            rows = slice(public + number * private, public + (number + 1) * private)
            claimed = claim_new(fit.single[rows], calibration).claimed[0.1]
            values.append(float((member[rows][claimed] == 0).mean()) if len(claimed) else 0.0)
    for base, values in shares.items():
        yield false_claims(f"LightGBM, private records, {base:.0%} members", values)
