"""Plan of reference models: python -m mia_lightning.planner --help."""

from __future__ import annotations

if __name__ == "__main__":
    from mia_lightning.cli import planner

    raise SystemExit(planner())
