"""The report that a person can send: one HTML file, an audit card and the figures as JSON, all from one `Report`."""
