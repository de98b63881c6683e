"""Reference models: trained like the target on known parts of the records, and what they say of every record."""
