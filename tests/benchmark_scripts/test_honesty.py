"""The table of promises: blocks, resumption, marks."""

import json

import pytest

from benchmarks.honesty import Row, Task, parts, pooled, rows_of, stored, table, tasks_of

PARTS = {part.name: part for part in parts()}


def test_names_of_parts_are_unique_and_blocks_cover_every_seed():
    assert len(PARTS) == len(list(parts()))
    for part in PARTS.values():
        for repetitions in filter(None, part.repetitions):
            tasks = tasks_of(part, repetitions)
            if part.summary:
                assert [s for task in tasks for s in range(*task.arguments["seeds"])] == list(range(repetitions))
            assert sum(task.seconds for task in tasks) == pytest.approx(repetitions * part.seconds)


def test_store_of_a_killed_run(tmp_path):
    task = Task(PARTS["layout"], {"repetitions": 1})
    lines = [json.dumps({"key": task.key, "results": [1]}), '{"key": "lay']
    (tmp_path / "store.jsonl").write_text("\n".join(lines))
    assert [line["key"] for line in stored(tmp_path / "store.jsonl")] == [task.key]
    assert stored(tmp_path / "absent.jsonl") == []


def test_coverage_from_stored_samples():
    inside, below, above = [0.4, 0.6], [0.3, 0.4], [0.6, 0.7]
    samples = [[0.5] * 5 + ends * 6 for ends in [inside] * 8 + [below, above]]
    rows = rows_of(PARTS["refitted gaussian 2000 0.5"], samples, 10)
    assert [(row.promise.split()[0], row.measured) for row in rows] == [
        ("AUC", 0.8), ("partial", 0.8), ("TPR@1%", 0.8), ("TPR@5%", 0.8)
    ]  # fmt: skip
    assert [(row.low, row.high) for row in rows] == [(0.93, 0.97)] * 4
    assert pooled(rows)[0].repetitions == 10


@pytest.mark.parametrize(
    ("measured", "mark"), [(0.95, ""), (0.90, ""), (0.88, "**misses**"), (1.0, ""), (0.8, "**misses**")]
)
def test_marks(measured, mark):
    row = Row("promise", "scenario", measured, 0.02, 0.93, 0.97, 100)
    assert row.mark == mark
    assert table([row._replace(stored=True)]).endswith(f"| 100 | stored{', ' * bool(mark)}{mark} |")
