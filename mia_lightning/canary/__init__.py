"""Canaries: records put into training by fair coins, and the one-run bounds that follow from them."""
