"""The training photos: found, divided, decoded once, varied and loaded."""
