"""Measurements: one script each; `README.md` has the figures."""
