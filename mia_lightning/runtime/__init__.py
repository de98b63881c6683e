"""Processes, locks, memory maps, the output store, atomic files and operating-system signals."""
