"""One run: checks, outputs, attacks and everything the run folder receives."""
