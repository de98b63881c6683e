"""One table of the product's statistical promises: promise, scenario, measured, standard error, nominal.

    python benchmarks/honesty.py [--quick | --full] [--only "refitted mlp"] [--save]

On two idle cores `--quick` takes half a minute, the default 12, `--full` two hours. Finished simulations are appended
to `--store`; the same command continues a run that was killed. Rows of a larger run in `honesty_rows.jsonl`, by the
same intervals, replace those of a smaller one and are marked as stored. A row that misses its nominal range by more
than 2 standard errors is marked; the exit code is then 1.
"""

import argparse
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.honesty_parts import COVERED, Part, Row, parts  # noqa: E402

LARGER, README = HERE / "honesty_rows.jsonl", HERE / "README.md"
MARKS = ("<!-- table of honesty.py -->", "<!-- end of the table of honesty.py -->")
SIZES = ("quick", "default", "full")
BLOCK = 20.0
"""CPU seconds of the simulations that are stored together, about."""


class Task(NamedTuple):
    """Simulations of one part that run in one go."""

    part: Part
    arguments: dict[str, Any]

    @property
    def key(self) -> str:
        """The name in the store."""
        return f"{self.part.name} {json.dumps(self.arguments, sort_keys=True)}"

    @property
    def seconds(self) -> float:
        """Estimated CPU time."""
        first, last = self.arguments.get("seeds", (0, self.arguments.get("repetitions", 0)))
        return self.part.seconds * (last - first)


def tasks_of(part: Part, repetitions: int) -> list[Task]:
    """Return the tasks of a part: blocks of seeds where samples are kept."""
    if not part.summary:
        return [Task(part, {**part.arguments, "repetitions": repetitions})]
    step = max(1, round(BLOCK / part.seconds))
    return [
        Task(part, {**part.arguments, "seeds": (first, min(first + step, repetitions))})
        for first in range(0, repetitions, step)
    ]


def execute(call: str, arguments: dict[str, Any]) -> tuple[list[Any], float]:
    """Return rows or samples, and the CPU time, in a worker."""
    started = time.process_time()
    module, name = call.split(":")
    function = getattr(importlib.import_module(module), name)
    seeds = arguments.pop("seeds", None)
    results = function(**arguments) if seeds is None else (function(**arguments, seed=s) for s in range(*seeds))
    return [list(result) for result in results], time.process_time() - started


def behavior() -> str:
    """Return the digest of the intervals, in a worker."""
    return str(importlib.import_module("benchmarks.honesty_intervals").behavior())


def end_with(parent: int) -> None:
    """End the worker when its parent was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def rows_of(part: Part, results: list[Any], repetitions: int) -> list[Row]:
    """Return the rows of a part from its rows as they were stored, or from its samples."""
    if part.summary:
        module = importlib.import_module(part.call.split(":")[0])
        results = list(getattr(module, part.summary)(results, **part.arguments))
    return [Row(*row[:6], repetitions) for row in results]


def pooled(rows: Sequence[Row]) -> list[Row]:
    """Return the coverage of refitted attacks over all cells with at least ten false positives."""
    cells = [row for row in rows if row.promise.endswith("refitted attack") and row.high < 1]
    result = []
    for promise in dict.fromkeys(row.promise for row in cells):
        chosen = [row for row in cells if row.promise == promise]
        total = sum(row.repetitions for row in chosen)
        rate = sum(row.repetitions * row.measured for row in chosen) / total
        text = f"all {len(chosen)} cells below"
        result.append(Row(promise, text, rate, (0.95 * 0.05 / total) ** 0.5, *COVERED[:2], total))
    return result


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| promise | scenario | measured | s.e. | nominal | repetitions | |", "|---|---|---:|---:|---:|---:|---|"]
    for row in rows:
        nominal = f"{row.low:g}" if row.low == row.high else f"{row.low:g}–{row.high:g}"
        nominal = "" if (row.low, row.high) == (0, 1) else nominal
        figures = f"{row.measured:.3f} | {row.standard_error:.3f} | {nominal} | {row.repetitions:,}"
        lines.append(f"| {row.promise} | {row.scenario} | {figures} | {row.mark} |")
    return "\n".join(lines)


def stored(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a store; a line that a kill cut off is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def run(chosen: Sequence[Task], store: Path, workers: int) -> tuple[dict[str, list[Any]], str]:
    """Execute the tasks that the store does not hold; return the results of all by key, and the digest."""
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with, initargs=(os.getpid(),))
    with pool, store.open("a", encoding="utf-8") as lines:
        version = pool.submit(behavior).result()
        done = {line["key"]: line["results"] for line in stored(store) if line["behavior"] == version}
        waiting = sorted((task for task in chosen if task.key not in done), key=lambda task: -task.seconds)
        note(f"{len(chosen) - len(waiting)} of {len(chosen)} simulations are in {store}")
        remaining = sum(task.seconds for task in waiting)
        futures = {pool.submit(execute, task.part.call, task.arguments): task for task in waiting}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                task, (results, seconds) = futures[future], future.result()
                done[task.key] = results
                line = {"key": task.key, "behavior": version, "seconds": round(seconds, 1), "results": results}
                lines.write(json.dumps(line) + "\n")
                lines.flush()
                remaining -= task.seconds
                left = f"{remaining / 60 / workers:.0f} min left"
                note(f"[{number}/{len(waiting)}] {task.part.name}: {seconds:.0f} CPU s, {left}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done, version


def note(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Print the table; return 1 where a row misses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick", help="minutes")
    size.add_argument("--full", dest="size", action="store_const", const="full", help="hours")
    parser.add_argument("--only", default="", metavar="TEXT", help="simulations whose name contains the text")
    parser.add_argument("--store", type=Path, default=Path("honesty.jsonl"), metavar="FILE")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--save", action="store_true", help="keep larger rows; without --only also write README.md")
    options = parser.parse_args()
    number = SIZES.index(options.size or "default")
    chosen = {part.name: part for part in parts() if options.only in part.name}
    if not chosen:
        parser.error(f"--only {options.only!r} is in no name: {', '.join(part.name for part in parts())}")
    tasks = {
        name: tasks_of(part, part.repetitions[number]) for name, part in chosen.items() if part.repetitions[number]
    }
    minutes = sum(task.seconds for group in tasks.values() for task in group) / 60 / options.workers
    time_text = f"{max(minutes, 1):.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
    note(f"{len(tasks)} simulations, about {time_text} with {options.workers} idle cores, less what is stored")
    done, version = run([task for group in tasks.values() for task in group], options.store, options.workers)
    larger = {line["part"]: line for line in stored(LARGER) if line["behavior"] == version}
    rows: list[Row] = []
    for name, part in chosen.items():
        results = [result for task in tasks.get(name, []) for result in done[task.key]]
        repetitions = part.repetitions[number]
        kept = larger.get(name)
        if kept and kept["repetitions"] > repetitions:
            rows += [Row(*row, stored=True) for row in kept["rows"]]
        elif repetitions:
            own = rows_of(part, results, repetitions)
            larger[name] = {"part": name, "behavior": version, "repetitions": repetitions, "rows": [r[:7] for r in own]}
            rows += own
    first = next((i for i, row in enumerate(rows) if row.promise.endswith("refitted attack")), len(rows))
    rows[first:first] = pooled(rows)
    text = table(rows)
    print(text)
    missed = sum(row.misses for row in rows)
    note(f"{len(rows)} rows, {missed} miss")
    if options.save:
        LARGER.write_text("".join(json.dumps(line) + "\n" for line in larger.values()), encoding="utf-8")
    if options.save and not options.only:  # the rows of a few simulations are not the table
        before, _, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        README.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}", encoding="utf-8")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
