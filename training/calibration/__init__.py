"""From raw scores to probabilities, and the threshold."""
