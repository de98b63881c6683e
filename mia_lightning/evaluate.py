"""Evaluate scores of any tool: python -m mia_lightning.evaluate --help.

The statistics are `assess.assess`, the same that a run calls; the files are described in `evaluation_files`.
"""

from __future__ import annotations

if __name__ == "__main__":
    from mia_lightning.cli import evaluate

    raise SystemExit(evaluate())
