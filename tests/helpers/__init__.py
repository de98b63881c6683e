"""Data sets, runners and hostile files that several tests share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""
