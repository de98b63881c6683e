"""Assessment of scores against membership: paired comparisons, sanity checks, claimed members, privacy bounds."""
