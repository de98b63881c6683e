"""Reference (shadow) models: training on known halves of the records, phi of every record, and scores from it."""
