"""What `/metrics` shows besides the requests: workers, processes, GPUs, models and feedback."""
