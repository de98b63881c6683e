"""Comparison of two targets on the same records: before and after."""
