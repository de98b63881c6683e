"""Hyper-parameter search over fields of a run: space, samplers, engines, and held-out evaluation of the winner."""
