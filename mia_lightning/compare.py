"""Comparison of two targets on the same records: python -m mia_lightning.compare --help."""

from __future__ import annotations

if __name__ == "__main__":
    from mia_lightning.cli import compare

    raise SystemExit(compare())
