"""Canaries and the audit by them: python -m mia_lightning.canaries --help."""

from __future__ import annotations

if __name__ == "__main__":
    from mia_lightning.cli import canaries

    raise SystemExit(canaries())
