"""Decision rules fixed before an audit: criteria with margins, evaluated by intervals."""
