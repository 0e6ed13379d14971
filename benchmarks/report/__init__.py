"""The report of a benchmark: JSON, and an HTML page with plots."""
