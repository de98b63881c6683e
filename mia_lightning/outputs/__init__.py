"""Model outputs of every record: augmented views, batched inference and its store."""
