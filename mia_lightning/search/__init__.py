"""The search over fields of a run: what is tried, how it is judged, and an honest estimate of what was found."""
