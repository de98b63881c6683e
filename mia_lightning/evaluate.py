"""Evaluation of membership scores from any tool: python -m mia_lightning.evaluate --help."""

from __future__ import annotations

if __name__ == "__main__":
    from mia_lightning.cli import evaluate

    raise SystemExit(evaluate())
