"""Benchmark of attacks over many targets: every model of a pool is a target of the others."""
