"""What reports and answers show to a person: HTML pages and heatmaps over photos."""
