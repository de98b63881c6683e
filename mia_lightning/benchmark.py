"""Benchmark of attacks over many targets: python -m mia_lightning.benchmark --help."""

from __future__ import annotations

if __name__ == "__main__":
    from mia_lightning.cli import benchmark

    raise SystemExit(benchmark())
