"""A matrix of measurements: every combination of devices, archives, models, workers, batches and loads."""
